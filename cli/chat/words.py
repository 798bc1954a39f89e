"""What a line of a chat holds: quoted messages, words, files, numbers."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path
from typing import NamedTuple

from minigen.errors import UsageError, shown
from minigen.reading import is_id

QUOTES = '"""'


class Line(NamedTuple):
    """What a user wrote. `pasted`: it begins with pasted text, which is a message whatever it looks like; `plain`: the
    triple quotes in it are pasted too, and only text.
    """

    text: str
    pasted: bool = False
    plain: bool = False


def without_line_end(text: str) -> str:
    """The text without one line ending at its end, which is how it was sent and no part of it."""
    return text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text


def command_of(text: str) -> tuple[str, str] | None:
    """(name, the rest as it is) of a line that is a command; None for a message."""
    found = re.match(r"/(\S*)\s?", text)
    return None if found is None else (found[1], text[found.end() :])


def is_open(text: str) -> bool:
    """Whether a block in triple quotes has been opened and not closed, as a message or as what a command takes."""
    command = command_of(text)
    return block(text if command is None else command[1])[0]


def unquoted(text: str) -> str | None:
    """The text of a block in triple quotes, where it is all there is; else None."""
    return block(text)[1]


def block(text: str) -> tuple[bool, str | None]:
    """Whether a text begins with a block that is not closed, and what is in a block that is all of the text.

    Three quotes at the start of a line begin a block, unless they end on that line, as a docstring of one line does.
    Alone on it, they end where three are alone again, and whatever is between them is text; with text behind them,
    they end at the end of a line.
    """
    first, *rest = text.split("\n")
    if not first.startswith(QUOTES) or first.count(QUOTES) > 1:
        return False, None
    begun = first.removeprefix(QUOTES)
    alone = not begun.strip()
    for number, line in enumerate(rest):
        ends = line.strip() == QUOTES if alone else line.rstrip().endswith(QUOTES)
        if ends and number < len(rest) - 1:
            return False, None  # text that goes on behind its quotes
        if ends:
            inside = rest[:number] if alone else [begun, *rest[:number]]
            last = line.rstrip().removesuffix(QUOTES)
            return False, "\n".join([*inside, last] if last.strip() else inside)
    return True, None


def words_of(rest: str) -> list[str]:
    try:
        return shlex.split(rest)
    except ValueError as error:
        raise UsageError(f"{rest!r}: {str(error).lower()}") from None


def first_word(rest: str) -> tuple[str, str]:
    """The first word, in quotes if need be, and the rest as it is."""
    stream = io.StringIO(rest)
    lexer = shlex.shlex(stream, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        return lexer.get_token() or "", stream.read()
    except ValueError as error:
        raise UsageError(f"{rest!r}: {str(error).lower()}") from None


def one_path(rest: str, usage: str) -> Path:
    words = words_of(rest)
    if len(words) != 1:
        raise UsageError(f"{usage} takes one file")
    return path_of(words[0])


def path_of(word: str) -> Path:
    """Raises UsageError for a home that there is not, and for what no file can be called."""
    if "\0" in word:
        raise UsageError(f"{word!r:.60} has a NUL character: no file is named so")
    try:
        return Path(word).expanduser()
    except RuntimeError:
        raise UsageError(f"{word}: there is no such home folder") from None


def seed_of(rest: str) -> int | None:
    return whole("seed", rest) if rest else None


def whole(name: str, text: str) -> int:
    """A whole number that a user wrote. Raises UsageError for what is none, or has more digits than any setting."""
    if not is_id(text):
        raise UsageError(f"{name} is {shown(text)}: it must be a whole number")
    return int(text)


def expect_free(path: Path) -> Path:
    """Raises UsageError for a file that exists: nothing is written over."""
    try:
        taken = path.exists()
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
    if taken:
        raise UsageError(f"{path} exists: choose another name")
    return path
