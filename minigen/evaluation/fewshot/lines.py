"""Where each key of a TOML text stands: the standard library's parser gives values without their lines."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping

from minigen.reading import parse_toml

Key = tuple[str | int, ...]  # names of tables and keys; an int is an index of an array, from 0

_BLANKS = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE = re.compile(r"[^\s.=\]\"'#]+")
_SCALAR = re.compile(r"[^,\]}\n#]*")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|' r"'''.*?'{3,5}|" r'"(?:[^"\\\n]|\\.)*"|' r"'[^'\n]*'",
    re.DOTALL,
)


def key_lines(text: str) -> Mapping[Key, int]:
    """The line, from 1, of every key, table and array element of a TOML text that the parser has accepted."""
    scan = _Scan(text)
    scan.document()
    return scan.found


class _Scan:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.found: dict[Key, int] = {}
        self._counts: dict[Key, int] = {}  # how many tables each [[array]] has so far
        self._newlines = [m.start() for m in re.finditer("\n", text)]

    def document(self) -> None:
        table: Key = ()
        self._skip(_GAP)
        while self.at < len(self.text):
            start = self.at
            if self._take("[["):
                names = self._key()
                self._take("]]")
                array = (*self._inside(names[:-1]), names[-1])
                index = self._counts[array] = self._counts.get(array, -1) + 1
                table = (*array, index)
                self._mark(table, start)
            elif self._take("["):
                table = self._inside(self._key())
                self._take("]")
                self._mark(table, start)
            else:
                self._pair(table)
            self._skip(_GAP)

    def _inside(self, names: Key) -> Key:
        """The full path of a header's names: a name of an array of tables means its latest table."""
        path: Key = ()
        for name in names:
            path = (*path, name)
            if path in self._counts:
                path = (*path, self._counts[path])
        return path

    def _mark(self, path: Key, start: int) -> None:
        line = bisect_right(self._newlines, start) + 1
        for size in range(1, len(path) + 1):
            self.found.setdefault(path[:size], line)

    def _pair(self, table: Key) -> None:
        start = self.at
        path = (*table, *self._key())
        self._take("=")
        self._mark(path, start)
        self._value(path)

    def _key(self) -> Key:
        names: list[str] = []
        while not names or self._take("."):
            self._skip(_BLANKS)
            quoted = self.text[self.at] in "\"'"
            raw = self._skip(_STRING if quoted else _BARE)
            names.append(parse_toml(f"key = {raw}")["key"] if quoted else raw)
            self._skip(_BLANKS)
        return tuple(names)

    def _value(self, path: Key) -> None:
        self._skip(_BLANKS)
        if self.text[self.at] in "\"'":
            self._skip(_STRING)
        elif self._take("["):
            index = 0
            while not self._ends("]"):
                self._mark((*path, index), self.at)
                self._value((*path, index))
                index += 1
        elif self._take("{"):
            while not self._ends("}"):
                self._pair(path)
        else:
            self._skip(_SCALAR)

    def _ends(self, bracket: str) -> bool:
        self._skip(_GAP)
        if self._take(","):
            self._skip(_GAP)
        return self._take(bracket)

    def _take(self, mark: str) -> bool:
        found = self.text.startswith(mark, self.at)
        self.at += len(mark) if found else 0
        return found

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        assert match is not None, "the parser has accepted this text"
        self.at = match.end()
        return match[0]
