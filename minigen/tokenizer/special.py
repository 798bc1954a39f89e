"""Which tokens a model folder's files name, and which they add to the vocabulary."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigen.errors import TokenizerError
from minigen.reading import is_id

SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
LISTS = ("additional_special_tokens", "extra_special_tokens")
DECODER = "added_tokens_decoder"
MOST_IDS = 2**31  # the libraries count tokens in 32 bits


@dataclass(frozen=True)
class AddedToken:
    """A token beside the vocabulary; a `special` one is a control token, never made from a user's text."""

    id: int
    content: str
    special: bool
    fields: dict[str, Any]  # as tokenizer.json has them

    def at(self, token_id: int) -> AddedToken:
        return AddedToken(token_id, self.content, self.special, {**self.fields, "id": token_id})

    def as_control(self) -> AddedToken:
        return AddedToken(self.id, self.content, True, {**self.fields, "special": True})


def added_token(path: Path, entry: Any, key: object = None) -> AddedToken:
    """From an entry of `added_tokens` (tokenizer.json) or, with its key, `added_tokens_decoder`."""
    fields = dict(entry) if isinstance(entry, dict) else {}
    token_id = int(key) if isinstance(key, str) and is_id(key) else fields.get("id")
    content = fields.get("content")
    if type(token_id) is not int or not 0 <= token_id < MOST_IDS or not isinstance(content, str) or not content:
        raise TokenizerError(f"{path}: an added token needs an id and a content: {entry!r:.80}")
    special = bool(fields.get("special", False))
    flags = {name: bool(fields.get(name, False)) for name in ("single_word", "lstrip", "rstrip")}
    flags["normalized"] = bool(fields.get("normalized", not special))
    return AddedToken(token_id, content, special, {"id": token_id, "content": content, **flags, "special": special})


def added_tokens(path: Path, config: Mapping[str, Any]) -> tuple[AddedToken, ...]:
    """`added_tokens_decoder` of tokenizer_config.json. Raises TokenizerError for an entry that is no token."""
    decoder = config.get(DECODER) or {}
    if not isinstance(decoder, dict):
        raise TokenizerError(f"{path}: {DECODER} must be an object")
    return tuple(added_token(path, entry, key) for key, entry in decoder.items())


def older_tokens(path: Path, content: Mapping[str, Any], controls: Collection[str]) -> tuple[AddedToken, ...]:
    """added_tokens.json, where transformers before 4.34 wrote them: ids by their texts, and nothing else.

    Those in `controls`, which other files name, are control tokens. Raises TokenizerError for an id that is none.
    """
    return tuple(
        added_token(path, {"id": token_id, "content": text, "special": text in controls})
        for text, token_id in content.items()
    )


def named_tokens(
    config_path: Path, config: Mapping[str, Any], map_path: Path, token_map: Mapping[str, Any]
) -> dict[str, str | None]:
    """The texts of the control tokens that tokenizer_config.json and special_tokens_map.json name, by what they call
    them (bos_token, ...); None for one that is null there. Raises TokenizerError for one that is no text.
    """
    ours, theirs = _tokens(config_path, config), _tokens(map_path, token_map)
    # As transformers: where that entry is missing, from the time before it, the map has the last word.
    return theirs | ours if DECODER in config else ours | theirs


def _tokens(path: Path, content: Mapping[str, Any]) -> dict[str, str | None]:
    """bos_token and its like, and what else a model names *_token or in its extra_special_tokens."""
    extra = content.get("extra_special_tokens")
    named = extra if isinstance(extra, dict) else {}
    found: dict[str, str | None] = {}
    for key, value in [*content.items(), *named.items()]:
        text = value.get("content", value) if isinstance(value, dict) else value
        if text is None or isinstance(text, str):
            if key.endswith("_token") or key in named:
                found[key] = text
        elif key in SPECIAL or key in named:
            raise TokenizerError(f"{path}: {key} must be a text or an object with a content, not {value!r:.60}")
    return found


def listed_tokens(path: Path, content: Mapping[str, Any]) -> list[str]:
    """The texts of additional_special_tokens and extra_special_tokens, where these are lists."""
    found: list[str] = []
    for key in LISTS:
        entries = content.get(key) or []
        if isinstance(entries, dict):  # by name: these are among the named tokens
            continue
        if not isinstance(entries, list):
            raise TokenizerError(f"{path}: {key} must be a list of tokens, not {entries!r:.60}")
        for entry in entries:
            text = entry.get("content") if isinstance(entry, dict) else entry
            if not isinstance(text, str) or not text:
                raise TokenizerError(f"{path}: {key} has {json.dumps(entry)[:60]}, which is no token")
            found.append(text)
    return found
