"""Reading a model folder's small files: JSON, and what they say about control tokens."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minigen.errors import TokenizerError, first_of
from minigen.reading import load_json, read_bytes
from minigen.tokenizer.base import Controls
from minigen.tokenizer.names import CONFIG, GENERATION, OLDER, TOKEN_MAP
from minigen.tokenizer.special import (
    AddedToken,
    added_tokens,
    listed_tokens,
    named_tokens,
    older_tokens,
)

SHOWN = 4  # names that a warning lists

log = logging.getLogger("minigen")


def read_text(path: Path) -> str:
    """The text of a file. Raises TokenizerError if it cannot be read or is not UTF-8."""
    try:
        return read_bytes(path).decode("utf-8")
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise TokenizerError(f"{path}: not UTF-8: byte 0x{byte:02X} at {error.start}") from None
    except ValueError as error:
        raise TokenizerError(f"{path}: {error}") from None


def parse_json(path: Path, text: str, *, halves: bool = False) -> Any:
    """The JSON of a file with this text; `halves` as in `load_json`.

    Raises TokenizerError if it is not JSON, or exceeds the bounds of `load_json`.
    """
    try:
        return load_json(text, halves=halves)
    except json.JSONDecodeError as error:
        position = f"line {error.lineno} column {error.colno}"
        raise TokenizerError(f"{path}: not valid JSON: {error.msg} at {position}") from None
    except ValueError as error:  # too deep, or a number of more than 4300 digits
        raise TokenizerError(f"{path}: not usable JSON: {error}") from None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is no such file."""
    if not path.is_file():
        return {}
    content = parse_json(path, read_text(path))
    if not isinstance(content, dict):
        raise TokenizerError(f"{path}: must be a JSON object, not {type(content).__name__}")
    return content


@dataclass(frozen=True)
class Settings:
    """What the files next to a vocabulary say about the tokenizer.

    Fields:
        place: The first of them, for messages.
        named: The texts of control tokens by name: eos_token, pad_token, ...
        listed: The texts of additional_special_tokens.
        bos_ids, eos_ids: Ids from the model's own configuration, used if no file names the token.
        add_bos: add_bos_token, whether texts begin with bos; None if not given.
        added: Tokens outside the vocabulary.
        older: Those of added_tokens.json, which does not say how they are matched.
        tokenizer_class: The class in transformers, without "Fast".
        add_prefix_space: Whether a text begins with a space; None if not given.
        legacy: For a LlamaTokenizer, whether text after a control token does too.
    """

    place: Path = Path(CONFIG)
    named: Mapping[str, str] = field(default_factory=dict)
    listed: tuple[str, ...] = ()
    bos_ids: tuple[int, ...] = ()
    eos_ids: tuple[int, ...] = ()
    add_bos: bool | None = None
    added: tuple[AddedToken, ...] = ()
    older: tuple[AddedToken, ...] = ()
    tokenizer_class: str = ""
    add_prefix_space: bool | None = None
    legacy: bool = False

    @property
    def texts(self) -> list[str]:
        """The texts of all control tokens that are named."""
        return [*self.named.values(), *self.listed]

    def controls(
        self,
        special: Mapping[str, int],
        vocab: Mapping[str, int],
        size: int,
        start_ids: tuple[int, ...] | None = None,
    ) -> Controls:
        """The control tokens of a vocabulary. Warns of names and ids that do not exist in it.

        Args:
            special: The ids of control tokens, by text.
            vocab: The ids of other tokens, by text; bos and eos may be among them.
            size: The number of ids.
            start_ids: What tokenizer.json puts before every text; None if there is no such file.
        """
        special_tokens = dict(special)

        def id_of(key: str, fallbacks: tuple[int, ...]) -> int | None:
            name = self.named.get(key)
            if name is not None and name in vocab:
                special_tokens.setdefault(name, vocab[name])
            if name is not None and name in special_tokens:
                return special_tokens[name]
            for token_id in fallbacks:
                if token_id < size:
                    return token_id
            return None

        bos_id = id_of("bos_token", self.bos_ids)
        eos_id = id_of("eos_token", self.eos_ids)
        missing = {name for name in self.texts if name not in special and name not in vocab}
        self._warn_of_names(missing, eos_id)
        self._warn_of_ids(size, bos_id, eos_id)
        return Controls(special_tokens, bos_id, eos_id, self._start(bos_id, start_ids))

    def _start(self, bos_id: int | None, start_ids: tuple[int, ...] | None) -> tuple[int, ...]:
        """What begins every text. add_bos_token takes precedence over tokenizer.json."""
        given = start_ids or ()
        has_bos = given[:1] == (bos_id,)
        if bos_id is None or self.add_bos is None or self.add_bos == has_bos:
            return given
        if start_ids is not None:
            log.warning(
                "%s: add_bos_token is %s, but tokenizer.json %s that token: using the former",
                self.place,
                str(self.add_bos).lower(),
                "begins no text with" if self.add_bos else "begins every text with",
            )
        if self.add_bos:
            return (bos_id, *given)
        return given[1:]

    def _warn_of_names(self, missing: set[str], eos_id: int | None) -> None:
        problems = []
        for key, name in self.named.items():
            if name in missing:
                problems.append(f"{key} is {name!r:.60}")
        for name in self.listed:
            if name in missing:
                problems.append(f"{name!r:.60} is a special token")
        if not problems:
            return
        folder = self.place.parent
        log.warning(
            "%s: %s: there is no such token in the vocabulary, so it is ignored",
            folder,
            first_of(problems, SHOWN),
        )
        if "eos_token" in self.named and eos_id is None:
            log.warning("%s: no token ends a text: every answer continues to its limit", folder)

    def _warn_of_ids(self, size: int, bos_id: int | None, eos_id: int | None) -> None:
        problems = []
        if bos_id is None:
            problems += [f"bos_token_id is {token_id}" for token_id in self.bos_ids]
        if eos_id is None:
            problems += [f"eos_token_id is {token_id}" for token_id in self.eos_ids]
        if problems:
            log.warning(
                "%s: %s, but there are only %d tokens, so it is ignored",
                self.place.parent,
                first_of(problems, SHOWN),
                size,
            )


def read_settings(folder: Path, config: Mapping[str, Any]) -> Settings:
    """The settings of a folder whose config.json is `config`.

    They are in tokenizer_config.json, special_tokens_map.json, added_tokens.json,
    generation_config.json and config.json.

    Raises TokenizerError: a file is broken, or an entry has the wrong type.
    """
    path, map_path, older_path = folder / CONFIG, folder / TOKEN_MAP, folder / OLDER
    own, token_map = read_object(path), read_object(map_path)
    generation = read_object(folder / GENERATION)
    named = {}
    for key, text in named_tokens(path, own, map_path, token_map).items():
        if text:
            named[key] = text
    listed = dict.fromkeys([*listed_tokens(path, own), *listed_tokens(map_path, token_map)])
    controls = {*named.values(), *listed}
    bos_ids: tuple[int, ...] = ()
    # "bos_token": null says that there is none; config.json often has an id for one nevertheless.
    if "bos_token" not in own or "bos_token" in named:
        bos_ids = _token_ids("bos_token_id", generation, config)
    return Settings(
        place=path,
        named=named,
        listed=tuple(listed),
        bos_ids=bos_ids,
        eos_ids=_token_ids("eos_token_id", generation, config),
        add_bos=_flag(path, own, "add_bos_token"),
        added=added_tokens(path, own),
        older=older_tokens(older_path, read_object(older_path), controls),
        tokenizer_class=str(own.get("tokenizer_class") or "").removesuffix("Fast"),
        add_prefix_space=_flag(path, own, "add_prefix_space"),
        legacy=own.get("legacy") is True,
    )


def _flag(path: Path, content: Mapping[str, Any], key: str) -> bool | None:
    value = content.get(key)
    if value is not None and not isinstance(value, bool):
        raise TokenizerError(f"{path}: {key} must be true or false, not {value!r:.60}")
    return value


def _token_ids(key: str, *configs: Mapping[str, Any]) -> tuple[int, ...]:
    """The ids of the first config that has any. Negative ones stand for none."""
    for config in configs:
        value = config.get(key)
        values = value if isinstance(value, list) else [value]
        ids = [token_id for token_id in values if type(token_id) is int and token_id >= 0]
        if ids:
            return tuple(ids)
    return ()
