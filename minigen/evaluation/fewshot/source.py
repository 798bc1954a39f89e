"""A TOML text with its lines, and its tables read key by key, so that a message can name both."""

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

MOST_BYTES = 16 * 2**20  # of a prompt file: more belongs into a data file

_AT = re.compile(r"^(.*) \(at (?:line (\d+), column (\d+)|end of document)\)$", re.DOTALL)


def short(value: object) -> str:
    """A value as a message shows it: on one line, and not too long."""
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
    """A prompt file's values and where they stand. Raises PromptError for a file that is no UTF-8 or no TOML."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            data = read_bytes(path, MOST_BYTES, pipes=True)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise PromptError(
                f"{path}: cannot be read: {reason}; give a *.prompt.toml file"
            ) from None
        # As TOML has it: a line ends with or without a carriage return, also within a text.
        text = decode(data, path).replace("\r\n", "\n")
        try:
            self.values: dict[str, Any] = parse_toml(text)
        except ValueError as error:
            raise self._syntax_error(text, error) from None
        self._lines = key_lines(text)

    def _syntax_error(self, text: str, error: Exception) -> PromptError:
        lines = text.split("\n")
        match = _AT.match(str(error))
        what = " ".join((match[1] if match else str(error)).split())
        line = int(match[2]) if match and match[2] else len(text.rstrip().split("\n"))
        return PromptError(
            f"{self.path}:{line}: TOML: {what}; look at {short(lines[line - 1].strip())}"
        )

    def where(self, key: Key = ()) -> str:
        """FILE:LINE of a key, or of the nearest table around it."""
        while key and key not in self._lines:
            key = key[:-1]
        return f"{self.path}:{self._lines[key] if key else 1}"

    def error(self, key: Key, problem: str) -> PromptError:
        """The error to raise about a key; `problem` is "what is wrong; what to do"."""
        name = "".join(f" #{part + 1}" if isinstance(part, int) else f".{part}" for part in key)
        return PromptError(f"{self.where(key)}: {name[1:]}: {problem}")


class Table:
    """One table of a source. Each reader raises PromptError, naming line and key, for a value of the wrong kind."""

    def __init__(self, source: Source, key: Key, values: Mapping[str, Any]) -> None:
        self.source, self.key, self.values = source, key, values

    def error(self, name: str, problem: str) -> PromptError:
        return self.source.error((*self.key, name), problem)

    def only(self, known: Sequence[str], elsewhere: Mapping[str, str]) -> None:
        """Refuses every key but the known ones; `elsewhere` says where the keys of other tables belong."""
        for name in self.values:
            if name not in known:
                if name in elsewhere:
                    raise self.error(name, f"is no key here; it belongs {elsewhere[name]}")
                raise self.error(name, f"is no key; {advice(name, known)}")

    def table(self, name: str) -> Table:
        value = self.values.get(name, {})
        if not isinstance(value, dict):
            raise self.error(name, f"is {short(value)}; it must be a table, as in [{name}]")
        return Table(self.source, (*self.key, name), value)

    def text(self, name: str, default: str) -> str:
        value = self.values.get(name, default)
        if not isinstance(value, str):
            raise self.error(name, f"is {short(value)}; it must be a text in quotes")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.values.get(name, [])
        if not isinstance(value, list):
            raise self.error(name, f"is {short(value)}; it must be a list of texts")
        for entry in value:
            if not isinstance(entry, str):
                raise self.error(
                    name, f"has the entry {short(entry)}; each must be a text in quotes"
                )
        return tuple(value)

    def one_of(self, name: str, known: Sequence[str], default: str) -> str:
        value = self.values.get(name, default)
        if not isinstance(value, str) or value not in known:
            hint = (
                advice(value, known) if isinstance(value, str) else f"there are {', '.join(known)}"
            )
            raise self.error(name, f"is {short(value)}; {hint}")
        return value

    def whole(self, name: str, least: int) -> int | None:
        value, numbers = self.values.get(name), Range(whole=True, least=least)
        if value is not None and numbers.take(value) is None:
            raise self.error(name, f"is {short(value)}; it must be {numbers}")
        return value

    def wholes(self, name: str, limit: int | None, default: tuple[int, ...]) -> tuple[int, ...]:
        """Whole numbers from 0, each once; one number may stand alone."""
        value = self.values.get(name, list(default))
        entries = value if isinstance(value, list) else [value]
        if not entries:
            raise self.error(name, "is empty; give at least one number, or drop the key")
        numbers = Range(whole=True, least=0, below=limit)
        for entry in entries:
            if numbers.take(entry) is None:
                raise self.error(name, f"has {short(entry)}; each must be {numbers}")
        counts = Counter[int](entries)
        twice = next((entry for entry in entries if counts[entry] > 1), None)
        if twice is not None:
            raise self.error(name, f"has {twice} twice; name each once")
        return tuple(entries)
