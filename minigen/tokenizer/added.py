"""All added tokens of a tokenizer.json, together with those that other files add."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from minigen.errors import first_of
from minigen.tokenizer.files import SHOWN, Settings, log
from minigen.tokenizer.special import AddedToken, added_token


def all_added(
    path: Path,
    own: Iterable[AddedToken],
    spec: Mapping[str, Any],
    vocab: Mapping[str, int],
    settings: Settings,
) -> list[AddedToken]:
    """The added tokens of a tokenizer.json, completed by what the other files say.

    The other files add those that are missing, and say how tokens are matched and which are control
    tokens. A token that has another id there is a warning.

    Args:
        path: tokenizer.json, for messages.
        own: Its added tokens.
        spec: Its content.
        vocab: The ids of its vocabulary, by text.
        settings: What the other files say.
    """
    tokens = {token.content: token for token in own}
    merge_settings(path, tokens, vocab, settings)
    names = list(dict.fromkeys(settings.texts))
    for name in names:
        if name in tokens:
            tokens[name] = tokens[name].as_control()
    # Control tokens that are entries of the vocabulary only.
    unlisted: list[str] = []
    for name in names:
        if name not in tokens and name in vocab:
            unlisted.append(name)
    ends = {settings.named.get("bos_token"), settings.named.get("eos_token")}
    ordinary: set[str] = set()
    if set(unlisted) - ends:
        ordinary = ordinary_entries(spec["model"], vocab)
    for name in unlisted:
        if name in ends or name not in ordinary:
            entry = {"id": vocab[name], "content": name, "special": True}
            tokens[name] = added_token(path, entry)
    return list(tokens.values())


def merge_settings(
    path: Path, tokens: dict[str, AddedToken], vocab: Mapping[str, int], settings: Settings
) -> None:
    """Adds the tokens of the other files to `tokens`, which has those of tokenizer.json by text.

    tokenizer.json takes precedence for ids, with a warning; tokenizer_config.json for how tokens
    are matched.
    """
    taken: dict[int, str] = {}
    if settings.added or settings.older:
        taken = {token_id: name for name, token_id in vocab.items()}
    for token in tokens.values():
        taken[token.id] = token.content
    contradictions = []
    listed = list(settings.added)
    by_config = {token.content for token in settings.added}
    for token in settings.older:
        if token.content not in by_config:
            listed.append(token)
    for token in listed:
        name = token.content
        own = tokens.get(name)
        own_id = vocab.get(name)
        if own is not None:
            own_id = own.id
        if own_id is not None and own_id != token.id:
            contradictions.append(f"{name!r:.60} has the id {own_id}, not {token.id}")
            token = token.at(own_id)
        elif own_id is None and token.id in taken:
            contradictions.append(f"the id {token.id} is {taken[token.id]!r:.60}, not {name!r:.60}")
            continue
        is_control = token.special or (own is not None and own.special)
        merged = token
        if own is not None and name not in by_config:
            merged = own
        if is_control:
            merged = merged.as_control()
        tokens[name] = merged
        taken[token.id] = name
    if contradictions:
        log.warning(
            "%s contradicts the files next to it: using %s",
            path,
            first_of(contradictions, SHOWN),
        )


def ordinary_entries(model: Mapping[str, Any], vocab: Mapping[str, int]) -> set[str]:
    """The entries of a vocabulary that an ordinary text can contain.

    These cannot be reserved as control tokens.
    """
    if model.get("type") == "Unigram":
        return set(vocab)
    entries = {name for name in vocab if len(name) == 1}
    for merge in model.get("merges") or ():
        if isinstance(merge, str):
            merge = merge.split(" ")
        entries.add("".join(merge))
    return entries
