"""A TOML file and its tables, read key by key, with errors that name line and key."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minigen.errors import shown
from minigen.evaluation.fewshot.file import PromptError
from minigen.evaluation.fewshot.lines import Key, key_lines
from minigen.reading import parse_toml, read_bytes
from minigen.reading.settings import Range
from minigen.reading.spellings import advice

MOST_BYTES = 16 * 2**20  # of a prompt file; more belongs in a data file

_AT = re.compile(r"^(.*) \(at (?:line (\d+), column (\d+)|end of document)\)$", re.DOTALL)


def short(value: object) -> str:
    """A value as it is quoted in a message: on one line, and shortened if it is long."""
    return shown(value, 60)


def decode(data: bytes, path: object) -> str:
    """The text of a file's bytes, which must be UTF-8, with or without a byte order mark."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise PromptError(
            f"{path}:{line}: encoding: byte 0x{byte:02X} is not UTF-8; save the file as UTF-8"
        ) from None


class Source:
    """The values of a TOML file, and their lines.

    Raises PromptError for a file that cannot be read, or that is not UTF-8 or not TOML.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            data = read_bytes(path, MOST_BYTES, pipes=True)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise PromptError(
                f"{path}: cannot be read: {reason}; give a *.prompt.toml file"
            ) from None
        # As TOML defines it, a line ends with or without a carriage return, even within a string.
        text = decode(data, path).replace("\r\n", "\n")
        try:
            self.values: dict[str, Any] = parse_toml(text)
        except ValueError as error:
            raise self._syntax_error(text, error) from None
        self._lines = key_lines(text)

    def _syntax_error(self, text: str, error: Exception) -> PromptError:
        problem = str(error)
        line = len(text.rstrip().split("\n"))  # the end of the document
        match = _AT.match(problem)
        if match:
            problem = match[1]
            if match[2]:
                line = int(match[2])
        problem = " ".join(problem.split())
        line_text = text.split("\n")[line - 1].strip()
        return PromptError(f"{self.path}:{line}: TOML: {problem}; look at {short(line_text)}")

    def where(self, key: Key = ()) -> str:
        """FILE:LINE of a key, or of the nearest table around it."""
        while key and key not in self._lines:
            key = key[:-1]
        line = self._lines[key] if key else 1
        return f"{self.path}:{line}"

    def error(self, key: Key, problem: str) -> PromptError:
        """The error to raise about a key; `problem` is "what is wrong; what to do"."""
        name = ""
        for part in key:
            name += f" #{part + 1}" if isinstance(part, int) else f".{part}"
        return PromptError(f"{self.where(key)}: {name[1:]}: {problem}")


class Table:
    """One table of a source. Its methods raise PromptError for a value of the wrong type."""

    def __init__(self, source: Source, key: Key, values: Mapping[str, Any]) -> None:
        self.source, self.key, self.values = source, key, values

    def error(self, name: str, problem: str) -> PromptError:
        return self.source.error((*self.key, name), problem)

    def only(self, known: Sequence[str], elsewhere: Mapping[str, str]) -> None:
        """Rejects all other keys; `elsewhere` says where the keys of other tables belong."""
        for name in self.values:
            if name in known:
                continue
            if name in elsewhere:
                raise self.error(name, f"is not a key of this table; it belongs {elsewhere[name]}")
            raise self.error(name, f"is not a known key; {advice(name, known)}")

    def table(self, name: str) -> Table:
        value = self.values.get(name, {})
        if not isinstance(value, dict):
            raise self.error(name, f"is {short(value)}; it must be a table, as in [{name}]")
        return Table(self.source, (*self.key, name), value)

    def text(self, name: str, default: str) -> str:
        value = self.values.get(name, default)
        if not isinstance(value, str):
            raise self.error(name, f"is {short(value)}; it must be a string in quotes")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.values.get(name, [])
        if not isinstance(value, list):
            raise self.error(name, f"is {short(value)}; it must be a list of strings")
        for entry in value:
            if not isinstance(entry, str):
                raise self.error(
                    name, f"has the entry {short(entry)}; each must be a string in quotes"
                )
        return tuple(value)

    def one_of(self, name: str, known: Sequence[str], default: str) -> str:
        value = self.values.get(name, default)
        if not isinstance(value, str) or value not in known:
            hint = f"there are {', '.join(known)}"
            if isinstance(value, str):
                hint = advice(value, known)
            raise self.error(name, f"is {short(value)}; {hint}")
        return value

    def whole(self, name: str, least: int) -> int | None:
        value, numbers = self.values.get(name), Range(whole=True, least=least)
        if value is not None and numbers.take(value) is None:
            raise self.error(name, f"is {short(value)}; it must be {numbers}")
        return value

    def wholes(self, name: str, limit: int | None, default: tuple[int, ...]) -> tuple[int, ...]:
        """Different whole numbers >= 0, in a list; a single one may stand without a list."""
        value = self.values.get(name, list(default))
        entries = value if isinstance(value, list) else [value]
        if not entries:
            raise self.error(name, "is empty; give at least one number, or drop the key")
        numbers = Range(whole=True, least=0, below=limit)
        for entry in entries:
            if numbers.take(entry) is None:
                raise self.error(name, f"has {short(entry)}; each must be {numbers}")
        most_frequent, count = Counter[int](entries).most_common(1)[0]
        if count > 1:
            raise self.error(name, f"has {most_frequent} more than once; give each number once")
        return tuple(entries)
