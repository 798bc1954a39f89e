"""The line of each key of a TOML text, which the standard library's parser does not report."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping

from minigen.reading import parse_toml

Key = tuple[str | int, ...]  # names of tables and keys; an int is an index in an array, from 0

_BLANKS = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE = re.compile(r"[^\s.=\]\"'#]+")
_SCALAR = re.compile(r"[^,\]}\n#]*")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|' r"'''.*?'{3,5}|" r'"(?:[^"\\\n]|\\.)*"|' r"'[^'\n]*'",
    re.DOTALL,
)


def key_lines(text: str) -> Mapping[Key, int]:
    """The line, from 1, of every key, table and array element of a valid TOML text."""
    scan = _Scan(text)
    scan.document()
    return scan.lines


class _Scan:
    """Walks through a valid TOML text from `at` on, and notes the line of every key."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Key, int] = {}
        self._last_index: dict[Key, int] = {}  # of each [[array]] of tables, so far
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
                index = self._last_index.get(array, -1) + 1
                self._last_index[array] = index
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
        """The path of a header: a name of an array of tables refers to the array's last table."""
        path: Key = ()
        for name in names:
            path = (*path, name)
            if path in self._last_index:
                path = (*path, self._last_index[path])
        return path

    def _mark(self, path: Key, start: int) -> None:
        """Notes the line of a key, and of the tables around it that have none yet."""
        line = bisect_right(self._newlines, start) + 1
        for size in range(1, len(path) + 1):
            self.lines.setdefault(path[:size], line)

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
            if quoted:
                string = self._skip(_STRING)
                names.append(parse_toml(f"key = {string}")["key"])
            else:
                names.append(self._skip(_BARE))
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
        """Whether an array or inline table ends here; steps over a comma, or over the bracket."""
        self._skip(_GAP)
        if self._take(","):
            self._skip(_GAP)
        return self._take(bracket)

    def _take(self, mark: str) -> bool:
        """Steps over `mark` if it comes next; whether it did."""
        if not self.text.startswith(mark, self.at):
            return False
        self.at += len(mark)
        return True

    def _skip(self, pattern: re.Pattern[str]) -> str:
        """Steps over what matches here, and returns it."""
        match = pattern.match(self.text, self.at)
        assert match is not None, "the parser has accepted this text"
        self.at = match.end()
        return match[0]
