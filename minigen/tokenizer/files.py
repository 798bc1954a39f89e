"""Reading a model folder's small files: JSON, and what they say about control tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigen.errors import TokenizerError
from minigen.reading import is_id, load_json, read_bytes
from minigen.tokenizer.base import Controls


def read_text(path: Path) -> str:
    """Raises TokenizerError where the file cannot be read or is not UTF-8."""
    try:
        return read_bytes(path).decode("utf-8")
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path}: not UTF-8: byte 0x{error.object[error.start]:02X} at {error.start}") from None
    except ValueError as error:
        raise TokenizerError(f"{path}: {error}") from None


def parse_json(path: Path, text: str, *, halves: bool = False) -> Any:
    """Raises TokenizerError where the text is not JSON, or not within the bounds of `load_json`."""
    try:
        return load_json(text, halves=halves)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise TokenizerError(f"{path}: not valid JSON: {error.msg} at {where}") from None
    except ValueError as error:  # too deep, say; a number of more than 4300 digits
        raise TokenizerError(f"{path}: not usable JSON: {error}") from None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is no such file."""
    if not path.is_file():
        return {}
    content = parse_json(path, read_text(path))
    if not isinstance(content, dict):
        raise TokenizerError(f"{path}: must be a JSON object, not {type(content).__name__}")
    return content


MOST_IDS = 2**31  # the libraries count tokens in 32 bits


@dataclass(frozen=True)
class AddedToken:
    """A token beside the vocabulary; a `special` one is a control token, never made from a user's text."""

    id: int
    content: str
    special: bool
    fields: dict[str, Any]  # as tokenizer.json has them


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


@dataclass(frozen=True)
class Settings:
    """What the files beside a vocabulary say about the tokenizer."""

    bos: str | None = None
    eos: str | None = None
    bos_id: int | None = None  # from the model's own configuration, where no file names the token
    eos_id: int | None = None
    add_bos: bool | None = None
    added: tuple[AddedToken, ...] = ()
    tokenizer_class: str = ""  # without "Fast"
    add_prefix_space: bool = False

    def controls(
        self, special: Mapping[str, int], vocab: Mapping[str, int], size: int, start_ids: tuple[int, ...] = ()
    ) -> Controls:
        """The control tokens of a vocabulary of `size` ids, in which bos and eos may be ordinary tokens."""
        special_tokens = dict(special)
        ends: list[int | None] = []
        for name, fallback in ((self.bos, self.bos_id), (self.eos, self.eos_id)):
            token_id = fallback if fallback is not None and fallback < size else None
            if name is not None and (name in special or name in vocab):
                token_id = special_tokens.setdefault(name, special.get(name, vocab.get(name, -1)))
            ends.append(token_id)
        bos_id, eos_id = ends
        if self.add_bos is True and bos_id is not None and start_ids[:1] != (bos_id,):
            start_ids = (bos_id, *start_ids)
        elif self.add_bos is False and start_ids and start_ids[0] == bos_id:
            start_ids = start_ids[1:]
        return Controls(special_tokens, bos_id, eos_id, start_ids)


def read_settings(folder: Path, config: Mapping[str, Any]) -> Settings:
    """From tokenizer_config.json, special_tokens_map.json, generation_config.json and `config`, in this
    order.

    Raises:
        TokenizerError: a file is broken, or an entry has the wrong type.
    """
    path = folder / "tokenizer_config.json"
    mine = read_object(path)
    token_map = read_object(folder / "special_tokens_map.json")
    generation = read_object(folder / "generation_config.json")
    decoder = mine.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise TokenizerError(f"{path}: added_tokens_decoder must be an object")
    add_bos = mine.get("add_bos_token")
    if add_bos is not None and not isinstance(add_bos, bool):
        raise TokenizerError(f"{path}: add_bos_token must be true or false, not {add_bos!r:.60}")
    names = {}
    for key in ("bos_token", "eos_token"):
        places = ((folder / "special_tokens_map.json", token_map), (path, mine))
        found = [_token_text(where, key, content[key]) for where, content in places if key in content]
        names[key] = next((name for name in reversed(found) if name is not None), None)
    # "bos_token": null says that there is none; config.json often has an id for one all the same.
    no_bos = "bos_token" in mine and names["bos_token"] is None
    return Settings(
        bos=names["bos_token"],
        eos=names["eos_token"],
        bos_id=None if no_bos else _token_id("bos_token_id", generation, config),
        eos_id=_token_id("eos_token_id", generation, config),
        add_bos=add_bos,
        added=tuple(added_token(path, entry, key) for key, entry in decoder.items()),
        tokenizer_class=str(mine.get("tokenizer_class") or "").removesuffix("Fast"),
        add_prefix_space=mine.get("add_prefix_space") is True,
    )


def _token_text(path: Path, key: str, value: Any) -> str | None:
    text = value.get("content") if isinstance(value, dict) else value
    if text is not None and not isinstance(text, str):
        raise TokenizerError(f"{path}: {key} must be a string, not {value!r:.60}")
    return text or None


def _token_id(key: str, *places: Mapping[str, Any]) -> int | None:
    for place in places:
        value = place.get(key)
        if isinstance(value, list):
            value = value[0] if value else None
        if type(value) is int and value >= 0:
            return value
    return None
