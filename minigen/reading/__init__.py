"""Files from untrusted sources, read within bounds. All JSON and TOML is read here.

What exceeds them is a ValueError that says why in a few words; the caller adds the file and what
to do. The bounds are several times as large as the largest files of published models: tokenizers
of 40 MB and 2 million values.
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
MOST_VALUES = 5_000_000  # in JSON; each takes up to 200 bytes of memory
MOST_TOML_VALUES = 1_000_000  # in TOML, which people write; the line of each value is kept
MOST_KEY_PARTS = 16  # of a TOML key, a.b.c; the time to parse it grows with their square
MOST_DEPTH = 100  # of nested objects and lists, which may be walked recursively

_KEY_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*"""
_LONG_KEY = re.compile(
    rf"(?:^[ \t]*\[{{0,2}}|[{{,])[ \t]*(?:{_KEY_PART}){{{MOST_KEY_PARTS}}}", re.MULTILINE
)
# An escape that may be half a character; two halves together are a character.
_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")


def read_bytes(path: Path, most: int = MOST_BYTES, *, pipes: bool = False) -> bytes:
    """The content of a file.

    Args:
        path: The file.
        most: How many bytes it may have.
        pipes: Whether it may be a pipe or a device, which only a path that the user typed should
            be.

    Raises OSError: it cannot be read.
    Raises ValueError: it is too large, is not a regular file, or the path is invalid.
    """
    status = os.stat(path)
    is_ordinary = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    if not pipes and not is_ordinary:  # a folder is refused by `open`
        raise ValueError("is not a regular file")
    chunks = list[bytes]()
    left = most + 1
    size = status.st_size + 1  # `read` allocates as much as it is asked for
    with open(path, "rb") as file:
        while left:
            chunk = file.read(min(left, size))
            if not chunk:
                break
            chunks.append(chunk)
            left, size = left - len(chunk), 2**20
    if not left:
        raise ValueError(f"is larger than {most // 2**20} MiB")
    return b"".join(chunks)


class RepeatedKeyError(ValueError):
    """Two values under one key of an object. Readers disagree on which to use, so it is refused."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {shown(key)} is there twice")
        self.key = key


def load_json(text: str, *, halves: bool = False) -> Any:
    """The value of a JSON text. NaN and Infinity, which Python writes, are accepted.

    Args:
        text: The text.
        halves: Whether to accept halves of surrogate pairs, for callers that report the field.

    Raises json.JSONDecodeError: it is not JSON.
    Raises RepeatedKeyError: an object has a key twice.
    Raises ValueError: it has half a character, or exceeds the bounds.
    """
    if _most_values(text) > MOST_VALUES:
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
    """As `load_json`, of text or of bytes in UTF-8; messages include the position."""
    try:
        if isinstance(raw, bytes):
            raw = raw.decode("utf-8")
        return load_json(raw)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (at byte {error.start})") from None
    except json.JSONDecodeError as error:
        position = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"not JSON ({error.msg} at {position})") from None


def parse_object(raw: bytes | str) -> dict[str, Any]:
    """As `parse_json`, but any value that is not an object is a ValueError too."""
    value = parse_json(raw)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text.

    Raises ValueError, such as tomllib.TOMLDecodeError, with the position in its message.
    """
    if _most_values(text) > MOST_TOML_VALUES:
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
    """Whether a text has half a surrogate pair, which cannot be written as UTF-8."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def is_id(text: str) -> bool:
    """Whether a text is a token id: ASCII digits, at most 20; `int` raises for thousands."""
    return text.isdecimal() and text.isascii() and len(text) <= 20


def at_home(path: str | os.PathLike[str]) -> Path:
    """A path with ~ replaced by the home folder; that of an unknown user is left as it is."""
    return Path(os.path.expanduser(path))


def _most_values(text: str) -> int:
    """An upper bound of the values in a text of JSON or TOML: the signs that come before one."""
    return text.count(",") + text.count("[") + text.count("{")


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object with these pairs. Raises RepeatedKeyError."""
    values = dict(pairs)
    if len(values) == len(pairs):
        return values
    seen = set[str]()
    for key, _ in pairs:
        if key in seen:
            raise RepeatedKeyError(key)
        seen.add(key)
    return values


def _check_depth(value: Any, kind: str) -> None:
    """Raises ValueError for more than MOST_DEPTH levels of objects and lists."""
    level = [value]
    for _ in range(MOST_DEPTH):
        children: list[Any] = []
        for container in level:
            if isinstance(container, dict):
                children += container.values()
            elif isinstance(container, list):
                children += container
        level = [child for child in children if isinstance(child, dict | list)]
        if not level:
            return
    raise ValueError(f"{kind} nested too deeply")


def _check_characters(value: Any) -> None:
    """Raises ValueError for half a character."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(error.object[error.start])
        raise ValueError(f"half a character in a text (the lone surrogate U+{code:04X})") from None
