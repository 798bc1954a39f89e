"""Files from anywhere, read within bounds. Every reader of JSON in minigen goes through here, so that one rule holds.

What is refused is a ValueError whose text says why in a few words; the caller adds the file and what to do. The bounds
lie several times above the largest files of published models: tokenizers of 40 MB and 2 million values.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from pathlib import Path
from typing import Any

from minigen.errors import shown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MOST_BYTES = 64 * 2**20  # of a file that is read as a whole
MOST_VALUES = 5_000_000  # of a JSON text: each takes up to 200 bytes of memory
MOST_TOML_VALUES = 1_000_000  # the same, of a TOML text: people write it, and the line of each value is kept
MOST_KEY_PARTS = 16  # of a TOML key, a.b.c: its parser takes the square of them
MOST_DEPTH = 100  # of objects and lists in each other: whatever walks them may recurse

_KEY_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*"""
_LONG_KEY = re.compile(rf"(?:^[ \t]*\[{{0,2}}|[{{,])[ \t]*(?:{_KEY_PART}){{{MOST_KEY_PARTS}}}", re.MULTILINE)
_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")  # what may be one; both halves together are a character


def read_bytes(path: Path, most: int = MOST_BYTES, *, pipes: bool = False) -> bytes:
    """The content of a file. `pipes`: it may be a pipe or a device, as only a path that the user typed should be.

    Raises OSError where it cannot be read, ValueError where it is too large, no regular file, or no path at all.
    """
    about = os.stat(path)
    if not pipes and not stat.S_ISREG(about.st_mode) and not stat.S_ISDIR(about.st_mode):  # a folder `open` refuses
        raise ValueError("is no regular file")
    pieces, left, size = list[bytes](), most + 1, about.st_size + 1
    with open(path, "rb") as file:
        while left and (piece := file.read(min(left, size))):  # `read` makes room for all that it is asked for
            pieces.append(piece)
            left, size = left - len(piece), 2**20
    if not left:
        raise ValueError(f"is larger than {most // 2**20} MiB")
    return b"".join(pieces)


class RepeatedKeyError(ValueError):
    """Two values under one key of an object: readers disagree on which counts, so neither does."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {shown(key)} is there twice")
        self.key = key


def load_json(text: str, *, halves: bool = False) -> Any:
    """The value of a JSON text. NaN and Infinity, which Python writes, are taken. `halves`: halves of characters too,
    by a caller that says in which field one is.

    Raises ValueError: json.JSONDecodeError, with the place, for what is no JSON, RepeatedKeyError, and others for half
    a character and for what is beyond the bounds.
    """
    if sum(map(text.count, ",[{")) > MOST_VALUES:
        raise ValueError(f"JSON of more than {MOST_VALUES:,} values")
    try:
        value = json.loads(text, object_pairs_hook=_each_key_once)
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None
    _check_depth(value, "JSON")
    if not halves and _HALF_CHARACTER.search(text):
        _check_characters(value)
    return value


def parse_json(raw: bytes | str) -> Any:
    """As `load_json`, of bytes in UTF-8 or of a text; the place of a fault is in the message."""
    try:
        return load_json(raw.decode("utf-8") if isinstance(raw, bytes) else raw)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (at byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at line {error.lineno}, column {error.colno})") from None


def parse_object(raw: bytes | str) -> dict[str, Any]:
    """As `parse_json`; ValueError for any value but an object too."""
    value = parse_json(raw)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises ValueError, tomllib.TOMLDecodeError among them, with the place in its text."""
    if sum(map(text.count, ",[{")) > MOST_TOML_VALUES:
        raise ValueError(f"TOML of more than {MOST_TOML_VALUES:,} values")
    long_key = _LONG_KEY.search(text)
    if long_key:
        line = text.count("\n", 0, long_key.end()) + 1
        raise ValueError(f"a key of more than {MOST_KEY_PARTS} parts (at line {line}, column 1)")
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise ValueError("TOML nested too deeply") from None
    _check_depth(values, "TOML")
    return values


def has_half_character(text: str) -> bool:
    """Whether a text has half of a surrogate pair, which is no character and cannot be written as UTF-8."""
    return any("\ud800" <= c <= "\udfff" for c in text)


def is_id(text: str) -> bool:
    """Whether a text is a token's id: ASCII digits, and not thousands of them, at which `int` raises."""
    return text.isdecimal() and text.isascii() and len(text) <= 20


def at_home(path: str | os.PathLike[str]) -> Path:
    """A path with ~ as the home folder. A user that there is not stays as it is written, and is then no folder."""
    return Path(os.path.expanduser(path))


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = set[str]()
        for key, _ in pairs:
            if key in seen:
                raise RepeatedKeyError(key)
            seen.add(key)
    return found


def _check_depth(value: Any, kind: str) -> None:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MOST_DEPTH):
        inner: list[Any] = []
        for container in level:
            if isinstance(container, dict):
                inner += container.values()
            else:
                inner += container
        level = [child for child in inner if isinstance(child, dict | list)]
        if not level:
            return
    raise ValueError(f"{kind} nested too deeply")


def _check_characters(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(error.object[error.start])
        raise ValueError(f"half a character in a text (the lone surrogate U+{code:04X})") from None
