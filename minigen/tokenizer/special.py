"""Which tokens a model folder's files name, and which they add to the vocabulary."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigen.errors import TokenizerError
from minigen.reading import is_id

NAMED = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
LISTS = ("additional_special_tokens", "extra_special_tokens")
DECODER = "added_tokens_decoder"
MOST_IDS = 2**31  # the libraries count tokens in 32 bits


@dataclass(frozen=True)
class AddedToken:
    """A token outside the vocabulary.

    Fields:
        id: Its id.
        content: Its text.
        special: Whether it is a control token, which a user's text never becomes.
        fields: What tokenizer.json says about it.
    """

    id: int
    content: str
    special: bool
    fields: dict[str, Any]

    def at(self, token_id: int) -> AddedToken:
        """The same token with another id."""
        return AddedToken(token_id, self.content, self.special, {**self.fields, "id": token_id})

    def as_control(self) -> AddedToken:
        """The same token as a control token."""
        return AddedToken(self.id, self.content, True, {**self.fields, "special": True})


def added_token(path: Path, entry: Any, key: object = None) -> AddedToken:
    """An entry of `added_tokens` in tokenizer.json, or of `added_tokens_decoder`, with its key.

    Raises TokenizerError for an entry that is not a token.
    """
    fields = dict(entry) if isinstance(entry, dict) else {}
    token_id, content = fields.get("id"), fields.get("content")
    if isinstance(key, str) and is_id(key):
        token_id = int(key)
    has_id = type(token_id) is int and 0 <= token_id < MOST_IDS
    if not has_id or not isinstance(content, str) or not content:
        raise TokenizerError(f"{path}: an added token needs an id and a content: {entry!r:.80}")
    assert isinstance(token_id, int)
    special = bool(fields.get("special", False))
    complete = {
        "id": token_id,
        "content": content,
        "single_word": bool(fields.get("single_word", False)),
        "lstrip": bool(fields.get("lstrip", False)),
        "rstrip": bool(fields.get("rstrip", False)),
        "normalized": bool(fields.get("normalized", not special)),
        "special": special,
    }
    return AddedToken(token_id, content, special, complete)


def added_tokens(path: Path, config: Mapping[str, Any]) -> tuple[AddedToken, ...]:
    """The `added_tokens_decoder` of tokenizer_config.json.

    Raises TokenizerError for an entry that is not a token.
    """
    decoder = config.get(DECODER) or {}
    if not isinstance(decoder, dict):
        raise TokenizerError(f"{path}: {DECODER} must be an object")
    return tuple(added_token(path, entry, key) for key, entry in decoder.items())


def older_tokens(
    path: Path, content: Mapping[str, Any], controls: Collection[str]
) -> tuple[AddedToken, ...]:
    """The tokens of added_tokens.json, where transformers before 4.34 wrote ids by text.

    Those in `controls`, which other files name, are control tokens. Raises TokenizerError for a
    value that is not an id.
    """
    tokens = []
    for text, token_id in content.items():
        entry = {"id": token_id, "content": text, "special": text in controls}
        tokens.append(added_token(path, entry))
    return tuple(tokens)


def named_tokens(
    config_path: Path, config: Mapping[str, Any], map_path: Path, token_map: Mapping[str, Any]
) -> dict[str, str | None]:
    """The texts of the control tokens that have names, such as bos_token; None for a null.

    They are named in tokenizer_config.json and special_tokens_map.json. Raises TokenizerError for a
    value that is not text.
    """
    from_config = _tokens(config_path, config)
    from_map = _tokens(map_path, token_map)
    # As in transformers: without that entry, the files are older, and the map takes precedence.
    if DECODER in config:
        return from_map | from_config
    return from_config | from_map


def _tokens(path: Path, content: Mapping[str, Any]) -> dict[str, str | None]:
    """bos_token and the like, other keys that end in _token, and named extra_special_tokens."""
    extra = content.get("extra_special_tokens")
    if not isinstance(extra, dict):
        extra = {}
    tokens: dict[str, str | None] = {}
    for key, value in [*content.items(), *extra.items()]:
        text = value.get("content", value) if isinstance(value, dict) else value
        if text is None or isinstance(text, str):
            if key.endswith("_token") or key in extra:
                tokens[key] = text
        elif key in NAMED or key in extra:
            raise TokenizerError(
                f"{path}: {key} must be a string or an object with a content, not {value!r:.60}"
            )
    return tokens


def listed_tokens(path: Path, content: Mapping[str, Any]) -> list[str]:
    """The texts of additional_special_tokens and extra_special_tokens, where these are lists."""
    texts: list[str] = []
    for key in LISTS:
        entries = content.get(key) or []
        if isinstance(entries, dict):  # by name: these are among the named tokens
            continue
        if not isinstance(entries, list):
            raise TokenizerError(f"{path}: {key} must be a list of tokens, not {entries!r:.60}")
        for entry in entries:
            text = entry.get("content") if isinstance(entry, dict) else entry
            if not isinstance(text, str) or not text:
                raise TokenizerError(
                    f"{path}: {key} has {json.dumps(entry)[:60]}, which is not a token"
                )
            texts.append(text)
    return texts
