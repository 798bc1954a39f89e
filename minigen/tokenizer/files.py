"""Reading a model folder's small files: JSON, and what they say about control tokens."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minigen.errors import TokenizerError, first_of
from minigen.reading import load_json, read_bytes
from minigen.tokenizer.base import Controls
from minigen.tokenizer.names import CONFIG, GENERATION, OLDER, TOKEN_MAP
from minigen.tokenizer.special import AddedToken, added_tokens, listed_tokens, named_tokens, older_tokens

SHOWN = 4  # names that a warning lists

log = logging.getLogger("minigen")


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


@dataclass(frozen=True)
class Settings:
    """What the files beside a vocabulary say about the tokenizer."""

    place: Path = Path(CONFIG)  # the first of them, for messages
    named: Mapping[str, str] = field(default_factory=dict)  # control tokens by name: eos_token, pad_token, ...
    listed: tuple[str, ...] = ()  # additional_special_tokens
    bos_ids: tuple[int, ...] = ()  # from the model's own configuration, where no file names the token
    eos_ids: tuple[int, ...] = ()
    add_bos: bool | None = None
    added: tuple[AddedToken, ...] = ()
    older: tuple[AddedToken, ...] = ()  # of added_tokens.json, which does not say how they are matched
    tokenizer_class: str = ""  # without "Fast"
    add_prefix_space: bool | None = None
    legacy: bool = False  # of a LlamaTokenizer: a space in front of what follows a control token too

    @property
    def texts(self) -> list[str]:
        """Every token that is named as a control token."""
        return [*self.named.values(), *self.listed]

    def controls(
        self,
        special: Mapping[str, int],
        vocab: Mapping[str, int],
        size: int,
        start_ids: tuple[int, ...] | None = None,
    ) -> Controls:
        """The control tokens of a vocabulary of `size` ids, in which bos and eos may be ordinary tokens. `start_ids`:
        what tokenizer.json puts before every text, where there is one.

        Warns of what counts as none: a name that is no token, an id beyond the vocabulary.
        """
        special_tokens = dict(special)
        ends: list[int | None] = []
        for key, fallbacks in (("bos_token", self.bos_ids), ("eos_token", self.eos_ids)):
            name = self.named.get(key)
            token_id = next((i for i in fallbacks if i < size), None)
            if name is not None and (name in special or name in vocab):
                token_id = special_tokens.setdefault(name, special.get(name, vocab.get(name, -1)))
            ends.append(token_id)
        bos_id, eos_id = ends
        self._warn_of_names([name for name in self.texts if name not in special and name not in vocab], eos_id)
        self._warn_of_ids(size, bos_id, eos_id)
        return Controls(special_tokens, bos_id, eos_id, self._start(bos_id, start_ids))

    def _start(self, bos_id: int | None, start_ids: tuple[int, ...] | None) -> tuple[int, ...]:
        """What begins every text: add_bos_token has the last word."""
        given = start_ids or ()
        begins = given[:1] == (bos_id,)
        if bos_id is None or self.add_bos is None or self.add_bos == begins:
            return given
        if start_ids is not None:
            log.warning(
                "%s: add_bos_token is %s, and tokenizer.json %s that token: the former is taken",
                self.place,
                str(self.add_bos).lower(),
                "begins no text with" if self.add_bos else "begins every text with",
            )
        return (bos_id, *given) if self.add_bos else given[1:]

    def _warn_of_names(self, absent: Collection[str], eos_id: int | None) -> None:
        lacking = [f"{key} is {name!r:.60}" for key, name in self.named.items() if name in absent]
        lacking += [f"{name!r:.60} is a special token" for name in self.listed if name in absent]
        where = self.place.parent
        if not lacking:
            return
        log.warning("%s: %s: no such token in the vocabulary, so it counts as none", where, first_of(lacking, SHOWN))
        if "eos_token" in self.named and eos_id is None:
            log.warning("%s: no token is left that ends a text: an answer goes on to its limit", where)

    def _warn_of_ids(self, size: int, bos_id: int | None, eos_id: int | None) -> None:
        beyond = [f"bos_token_id is {i}" for i in self.bos_ids if bos_id is None]
        beyond += [f"eos_token_id is {i}" for i in self.eos_ids if eos_id is None]
        if beyond:
            where, shown = self.place.parent, first_of(beyond, SHOWN)
            log.warning("%s: %s and there are %d tokens, so it counts as none", where, shown, size)


def read_settings(folder: Path, config: Mapping[str, Any]) -> Settings:
    """From tokenizer_config.json, special_tokens_map.json, added_tokens.json, generation_config.json and `config`.

    Raises TokenizerError: a file is broken, or an entry has the wrong type.
    """
    path, map_path, older_path = (folder / name for name in (CONFIG, TOKEN_MAP, OLDER))
    mine, token_map = read_object(path), read_object(map_path)
    generation = read_object(folder / GENERATION)
    found = named_tokens(path, mine, map_path, token_map)
    named = {key: text for key, text in found.items() if text}
    listed = dict.fromkeys([*listed_tokens(path, mine), *listed_tokens(map_path, token_map)])
    controls = {*named.values(), *listed}
    # "bos_token": null says that there is none; config.json often has an id for one all the same.
    no_bos = "bos_token" in mine and "bos_token" not in named
    return Settings(
        place=path,
        named=named,
        listed=tuple(listed),
        bos_ids=() if no_bos else _token_ids("bos_token_id", generation, config),
        eos_ids=_token_ids("eos_token_id", generation, config),
        add_bos=_flag(path, mine, "add_bos_token"),
        added=added_tokens(path, mine),
        older=older_tokens(older_path, read_object(older_path), controls),
        tokenizer_class=str(mine.get("tokenizer_class") or "").removesuffix("Fast"),
        add_prefix_space=_flag(path, mine, "add_prefix_space"),
        legacy=mine.get("legacy") is True,
    )


def _flag(path: Path, content: Mapping[str, Any], key: str) -> bool | None:
    value = content.get(key)
    if value is not None and not isinstance(value, bool):
        raise TokenizerError(f"{path}: {key} must be true or false, not {value!r:.60}")
    return value


def _token_ids(key: str, *places: Mapping[str, Any]) -> tuple[int, ...]:
    """The ids of the first place that has any; a negative one is none."""
    for place in places:
        value = place.get(key)
        ids = [i for i in (value if isinstance(value, list) else [value]) if type(i) is int and i >= 0]
        if ids:
            return tuple(ids)
    return ()
