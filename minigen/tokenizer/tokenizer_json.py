"""The content of a tokenizer.json: which library runs it, with which control tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from minigen.errors import TokenizerError
from minigen.tokenizer.added import all_added
from minigen.tokenizer.base import Tokenizer
from minigen.tokenizer.bytelevel import GPT2_PATTERN, PATTERNS, TiktokenTokenizer
from minigen.tokenizer.files import Settings
from minigen.tokenizer.huggingface import HuggingFaceTokenizer
from minigen.tokenizer.prefix_space import settle_prefix_space
from minigen.tokenizer.proof import mergeable_ranks
from minigen.tokenizer.special import AddedToken, added_token

Merges = list[Any]  # pairs of tokens


def from_tokenizer_json(path: Path, text: str | None, spec: Any, settings: Settings) -> Tokenizer:
    """The tokenizer of a tokenizer.json: tiktoken if it provably gives the same ids.

    Otherwise it is the `tokenizers` library.

    Args:
        path: The file, for messages.
        text: Its text; None if `spec` was made from other files.
        spec: Its content.
        settings: What the other files say.

    Raises TokenizerError: the content is not that of a tokenizer, or contradicts itself.
    """
    if not isinstance(spec, dict) or not isinstance(spec.get("model"), dict):
        raise TokenizerError(f"{path}: not a tokenizer.json: it has no model")
    vocab, merges = read_vocab(path, spec["model"]), read_merges(path, spec["model"])
    listed = spec.get("added_tokens") or []
    if not isinstance(listed, list):
        raise TokenizerError(f"{path}: added_tokens must be a list")
    own_added = [added_token(path, entry) for entry in listed]
    added = all_added(path, own_added, spec, vocab, settings)
    added_ids = {token.id for token in added}
    special = {token.content: token.id for token in added if token.special}
    size = 1 + max((*vocab.values(), *added_ids), default=-1)
    start = None
    if text is not None:
        start = start_ids(path, spec.get("post_processor"))
    controls = settings.controls(special, vocab, size, start)

    settled = settle_prefix_space(path, spec, settings)
    if settled is not spec or added != own_added:
        text = None  # it does not say this any more
    pattern = tiktoken_pattern(settled, added)
    if pattern is not None and merges is not None:
        ranks = mergeable_ranks(vocab, merges, {token.content for token in added})
        if ranks is not None and added_ids.isdisjoint(ranks.values()):
            return TiktokenTokenizer(ranks, pattern, controls, source=str(path))
    if merges is not None:
        check_merges(path, spec["model"], vocab, merges)
    if text is None:
        by_id = sorted(added, key=lambda token: token.id)
        content = {**settled, "added_tokens": [token.fields for token in by_id]}
        text = json.dumps(content, ensure_ascii=False)
    return HuggingFaceTokenizer(text, settled, size, controls, added, source=str(path))


def read_vocab(path: Path, model: Mapping[str, Any]) -> dict[str, int]:
    """The vocabulary of any model: an object of ids, or a list of [piece, score].

    Raises TokenizerError: it is neither, or an id is not a number.
    """
    vocab = model.get("vocab")
    if isinstance(vocab, list):
        pieces = {}
        for index, entry in enumerate(vocab):
            if not isinstance(entry, list) or not entry or not isinstance(entry[0], str):
                raise TokenizerError(f"{path}: an entry of the vocabulary is not [piece, score]")
            pieces[entry[0]] = index
        return pieces
    if not isinstance(vocab, dict):
        raise TokenizerError(f"{path}: the model has no vocabulary")
    if set(map(type, vocab.values())) <= {int}:  # five times as fast as a loop
        return vocab
    for name, token_id in vocab.items():
        if type(token_id) is not int:
            raise TokenizerError(
                f"{path}: the id of {name!r:.60} is {token_id!r:.60}, not a whole number"
            )
    return vocab


def read_merges(path: Path, model: Mapping[str, Any]) -> Merges | None:
    """The merges as pairs, written either "a b" or ["a", "b"]; None for a model without merges.

    Raises TokenizerError: one is not a pair.
    """
    merges = model.get("merges")
    if merges is None:
        return None
    kinds = set(map(type, merges)) if isinstance(merges, list) else {type(merges)}
    pairs: Merges
    if isinstance(merges, list) and kinds == {str}:
        pairs = [tuple(merge.split(" ")) for merge in merges]
    elif isinstance(merges, list) and kinds <= {list}:
        pairs = merges
    else:
        raise TokenizerError(f"{path}: merges must be a list of pairs")
    are_pairs = set(map(len, pairs)) <= {2}  # as above
    if are_pairs and kinds == {list}:
        are_pairs = all(type(first) is str and type(second) is str for first, second in pairs)
    if are_pairs:
        return pairs
    for index, (pair, merge) in enumerate(zip(pairs, merges, strict=True)):
        if len(pair) != 2 or not isinstance(pair[0], str) or not isinstance(pair[1], str):
            raise TokenizerError(f"{path}: merge {index} is not a pair of tokens: {merge!r:.60}")
    raise AssertionError("one of them is not a pair")


def check_merges(
    path: Path, model: Mapping[str, Any], vocab: Mapping[str, int], merges: Merges
) -> None:
    """Raises TokenizerError if a merge has a token that the vocabulary lacks.

    The library would panic, or not name the file.
    """
    prefix = len(str(model.get("continuing_subword_prefix") or ""))
    for index, (first, second) in enumerate(merges):
        product = first + second[prefix:]
        if first in vocab and second in vocab and product in vocab:
            continue
        for name in (first, second, product):
            if name not in vocab:
                raise TokenizerError(
                    f"{path}: merge {index} needs {name!r:.60}, which the vocabulary lacks"
                )


def start_ids(path: Path, processor: Any) -> tuple[int, ...]:
    """What a post-processor puts before a text; what it puts after one would end a prompt."""
    kind = processor.get("type") if isinstance(processor, dict) else None
    try:
        if kind == "TemplateProcessing":
            return _template_start(processor)
        if kind in ("BertProcessing", "RobertaProcessing"):
            return _checked_ids([processor["cls"][1]])
        if kind == "Sequence":
            ids: tuple[int, ...] = ()
            for step in processor["processors"]:
                ids = start_ids(path, step) + ids
            return ids
    except (KeyError, TypeError, ValueError, IndexError):
        raise TokenizerError(f"{path}: the post-processor {kind} is not complete") from None
    return ()


def _template_start(processor: Mapping[str, Any]) -> tuple[int, ...]:
    """The ids of the special tokens before the text in a template."""
    ids: list[int] = []
    for item in processor["single"]:
        if "SpecialToken" not in item:
            break
        ids += processor["special_tokens"][item["SpecialToken"]["id"]]["ids"]
    return _checked_ids(ids)


def _checked_ids(ids: list[Any]) -> tuple[int, ...]:
    """The ids. Raises TypeError if one is not a whole number."""
    if not all(type(token_id) is int for token_id in ids):
        raise TypeError
    return tuple(ids)


def tiktoken_pattern(spec: Mapping[str, Any], added: Iterable[AddedToken]) -> str | None:
    """The pattern that splits a text, if tiktoken can do all that a tokenizer.json asks for.

    Merges aside. An unknown token, byte fallback and `ignore_merges` make no difference: with a
    token for every byte nothing is unknown, and if every token is reachable, taking a whole piece
    changes nothing (proof.py).
    """
    model, decoder = spec["model"], spec.get("decoder")
    if model.get("type", "BPE") != "BPE" or spec.get("normalizer") is not None:
        return None
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            return None
    if not isinstance(decoder, dict) or decoder.get("type") != "ByteLevel":
        return None
    if not _are_split_off_first(added):
        return None
    return _pattern_of(spec.get("pre_tokenizer"))


def _are_split_off_first(added: Iterable[AddedToken]) -> bool:
    """Whether added tokens can be split off a text in one pass, without the spaces around them."""
    normalized = set()
    for token in added:
        fields = token.fields
        if not token.special or fields["lstrip"] or fields["rstrip"] or fields["single_word"]:
            return False
        normalized.add(fields["normalized"])
    return len(normalized) <= 1


def _pattern_of(pre_tokenizer: Any) -> str | None:
    """The pattern of a byte-level pre-tokenizer that splits by one of PATTERNS, else None."""
    if not isinstance(pre_tokenizer, dict):
        return None
    steps = [pre_tokenizer]
    if pre_tokenizer.get("type") == "Sequence":
        steps = pre_tokenizer.get("pretokenizers", [])
    if not isinstance(steps, list) or not 1 <= len(steps) <= 2:
        return None
    if not all(isinstance(step, dict) for step in steps):
        return None
    first, last = steps[0], steps[-1]
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space") is not False:
        return None
    if len(steps) == 1:
        if last.get("use_regex", True) is True:
            return GPT2_PATTERN
        return None
    if last.get("use_regex") is not False or first.get("type") != "Split":
        return None
    if first.get("behavior") != "Isolated" or first.get("invert") is not False:
        return None
    if not isinstance(first.get("pattern"), dict):
        return None
    pattern = first["pattern"].get("Regex")
    if isinstance(pattern, str) and pattern in PATTERNS:
        return pattern
    return None
