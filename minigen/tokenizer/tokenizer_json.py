"""The content of a tokenizer.json: which library runs it, and with which control tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from minigen.errors import TokenizerError, first_of
from minigen.tokenizer.base import Tokenizer
from minigen.tokenizer.bytelevel import GPT2_PATTERN, PATTERNS, TiktokenTokenizer
from minigen.tokenizer.files import SHOWN, Settings, log
from minigen.tokenizer.huggingface import HuggingFaceTokenizer, dump
from minigen.tokenizer.prefix_space import settle_prefix_space
from minigen.tokenizer.proof import mergeable_ranks
from minigen.tokenizer.special import AddedToken, added_token

Merges = list[tuple[str, str]]


def from_tokenizer_json(path: Path, text: str | None, spec: Any, settings: Settings) -> Tokenizer:
    """tiktoken where it provably gives the same ids, else the `tokenizers` library.

    `text` is the file's text, or None where there is none for `spec`.

    Raises TokenizerError: the content is not a tokenizer's, or contradicts itself.
    """
    if not isinstance(spec, dict) or not isinstance(spec.get("model"), dict):
        raise TokenizerError(f"{path}: not a tokenizer.json: it has no model")
    vocab, merges = read_vocab(path, spec["model"]), read_merges(path, spec["model"])
    listed = spec.get("added_tokens") or []
    if not isinstance(listed, list):
        raise TokenizerError(f"{path}: added_tokens must be a list")
    given = [added_token(path, entry) for entry in listed]
    added = _all_added(path, given, spec, vocab, settings)
    special = {token.content: token.id for token in added if token.special}
    size = 1 + max((*vocab.values(), *(token.id for token in added)), default=-1)
    start = None if text is None else start_ids(path, spec.get("post_processor"))
    controls = settings.controls(special, vocab, size, start)

    settled = settle_prefix_space(path, spec, settings)
    text, spec = (text, spec) if settled is spec else (None, settled)
    pattern = _same_pattern(spec, added)
    if pattern is not None and merges is not None:
        ranks = mergeable_ranks(vocab, merges, {token.content for token in added})
        if ranks is not None and not {token.id for token in added} & set(ranks.values()):
            return TiktokenTokenizer(ranks, pattern, controls, source=str(path))
    if merges is not None:
        _check_merges(path, spec["model"], vocab, merges)
    if added != given or text is None:
        text = dump({**spec, "added_tokens": [token.fields for token in sorted(added, key=lambda t: t.id)]})
    return HuggingFaceTokenizer(text, spec, size, controls, added, source=str(path))


def read_vocab(path: Path, model: Mapping[str, Any]) -> dict[str, int]:
    """The vocabulary of any model: an object of ids, or a list of [piece, score].

    Raises TokenizerError: it is neither, or an id is no number.
    """
    vocab = model.get("vocab")
    if isinstance(vocab, list):
        if not all(isinstance(entry, list) and entry and isinstance(entry[0], str) for entry in vocab):
            raise TokenizerError(f"{path}: an entry of the vocabulary is not [piece, score]")
        return {entry[0]: i for i, entry in enumerate(vocab)}
    if not isinstance(vocab, dict):
        raise TokenizerError(f"{path}: the model has no vocabulary")
    if set(map(type, vocab.values())) - {int}:
        name = next(name for name, i in vocab.items() if type(i) is not int)
        raise TokenizerError(f"{path}: the id of {name!r:.60} is {vocab[name]!r:.60}, not a whole number")
    return vocab


def read_merges(path: Path, model: Mapping[str, Any]) -> Merges | None:
    """The merges as pairs, written either "a b" or ["a", "b"]; None for a model that has none.

    Raises TokenizerError: one is not a pair.
    """
    merges = model.get("merges")
    if merges is None:
        return None
    if isinstance(merges, list):
        kinds = set(map(type, merges))
        pairs = [tuple(merge.split(" ")) for merge in merges] if kinds == {str} else merges
        if kinds <= {str} or kinds <= {list}:
            if set(map(len, pairs)) <= {2} and (kinds == {str} or all(type(a) is type(b) is str for a, b in pairs)):
                return pairs
            place, merge = next((i, m) for i, m in enumerate(merges) if not _is_pair(m))
            raise TokenizerError(f"{path}: merge {place} is not a pair of tokens: {merge!r:.60}")
    raise TokenizerError(f"{path}: merges must be a list of pairs")


def _is_pair(merge: Any) -> bool:
    parts = merge.split(" ") if isinstance(merge, str) else merge
    return len(parts) == 2 and all(isinstance(part, str) for part in parts)


def _check_merges(path: Path, model: Mapping[str, Any], vocab: Mapping[str, int], merges: Merges) -> None:
    """The library panics, or names no file, where a merge has a token that the vocabulary lacks."""
    prefix = len(str(model.get("continuing_subword_prefix") or ""))
    for place, (a, b) in enumerate(merges):
        if a not in vocab or b not in vocab or a + b[prefix:] not in vocab:
            missing = next(name for name in (a, b, a + b[prefix:]) if name not in vocab)
            raise TokenizerError(f"{path}: merge {place} needs {missing!r:.60}, which the vocabulary lacks")


def _all_added(
    path: Path, given: Iterable[AddedToken], spec: Mapping[str, Any], vocab: Mapping[str, int], settings: Settings
) -> list[AddedToken]:
    """The file's added tokens; the settings add those missing, and say how they are matched and which are control
    tokens. Warns of a token that has another id there."""
    tokens = {token.content: token for token in given}
    taken = {i: name for name, i in vocab.items()} if settings.added or settings.older else {}
    taken |= {token.id: token.content for token in tokens.values()}
    contradictions = []
    by_config = dict.fromkeys(token.content for token in settings.added)
    older = [token for token in settings.older if token.content not in by_config]
    for token in (*settings.added, *older):
        name, there = token.content, tokens.get(token.content)
        known = vocab.get(name) if there is None else there.id
        if known is not None and known != token.id:
            contradictions.append(f"{name!r:.60} has the id {known}, not {token.id}")
            token = token.at(known)
        elif known is None and token.id in taken:
            contradictions.append(f"the id {token.id} is {taken[token.id]!r:.60}, not {name!r:.60}")
            continue
        special = token.special or (there is not None and there.special)
        chosen = token if there is None or name in by_config else there
        tokens[name] = chosen.as_control() if special else chosen
        taken[token.id] = name
    if contradictions:
        log.warning("%s contradicts the files beside it, and is taken: %s", path, first_of(contradictions, SHOWN))
    ends = {settings.named.get("bos_token"), settings.named.get("eos_token")}
    names = dict.fromkeys(settings.texts)
    tokens |= {name: tokens[name].as_control() for name in names if name in tokens}
    loose = [name for name in names if name not in tokens and name in vocab]
    in_texts = _in_texts(spec["model"], vocab) if set(loose) - ends else set()
    for name in loose:
        if name in ends or name not in in_texts:
            tokens[name] = added_token(path, {"id": vocab[name], "content": name, "special": True})
    return list(tokens.values())


def _in_texts(model: Mapping[str, Any], vocab: Mapping[str, int]) -> set[str]:
    """The entries of a vocabulary that an ordinary text may hold, so that they cannot be kept for control."""
    if model.get("type") == "Unigram":
        return set(vocab)
    merges = (merge.split(" ") if isinstance(merge, str) else merge for merge in model.get("merges") or ())
    return {"".join(pair) for pair in merges} | {name for name in vocab if len(name) == 1}


def start_ids(path: Path, processor: Any) -> tuple[int, ...]:
    """What a post-processor puts before a text. (What it puts after one would end a prompt: left out.)"""
    kind = processor.get("type") if isinstance(processor, dict) else None
    try:
        if kind == "TemplateProcessing":
            ids: list[int] = []
            for item in processor["single"]:
                if "SpecialToken" not in item:
                    break
                ids += processor["special_tokens"][item["SpecialToken"]["id"]]["ids"]
            if not all(type(i) is int for i in ids):
                raise TypeError
            return tuple(ids)
        if kind in ("BertProcessing", "RobertaProcessing"):
            token_id = processor["cls"][1]
            if type(token_id) is not int:
                raise TypeError
            return (token_id,)
        if kind == "Sequence":
            inner = [start_ids(path, step) for step in processor["processors"]]
            return tuple(i for ids in reversed(inner) for i in ids)
    except (KeyError, TypeError, ValueError, IndexError):
        raise TokenizerError(f"{path}: the post-processor {kind} is not complete") from None
    return ()


def _same_pattern(spec: Mapping[str, Any], added: Iterable[AddedToken]) -> str | None:
    """The pattern with which tiktoken cuts a text as this file says, if all but the merges is as in tiktoken.

    An unknown token, byte fallback and `ignore_merges` need no look: with a token for every byte nothing is
    unknown, and where every token is reachable, taking a whole piece changes nothing (proof.py).
    """
    model, cut, decoder = spec["model"], spec.get("pre_tokenizer"), spec.get("decoder")
    if model.get("type", "BPE") != "BPE" or spec.get("normalizer") is not None:
        return None
    if any(model.get(name) for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix")):
        return None
    if not isinstance(decoder, dict) or decoder.get("type") != "ByteLevel" or not isinstance(cut, dict):
        return None
    # Text between control tokens is cut out alike if these are all found in one pass and take no space with
    # them.
    if any(not t.special or t.fields["lstrip"] or t.fields["rstrip"] or t.fields["single_word"] for t in added):
        return None
    if len({t.fields["normalized"] for t in added}) > 1:
        return None
    steps = cut.get("pretokenizers") if cut.get("type") == "Sequence" else [cut]
    if not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps):
        return None
    last = steps[-1]
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space") is not False:
        return None
    if len(steps) == 1:
        return GPT2_PATTERN if last.get("use_regex", True) is True else None
    first = steps[0]
    if len(steps) > 2 or last.get("use_regex") is not False or first.get("type") != "Split":
        return None
    if first.get("behavior") != "Isolated" or first.get("invert") is not False:
        return None
    pattern = first["pattern"].get("Regex") if isinstance(first.get("pattern"), dict) else None
    return pattern if isinstance(pattern, str) and pattern in PATTERNS else None
