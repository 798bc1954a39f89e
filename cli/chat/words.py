"""The parts of a line of a chat: quoted messages, words, files, numbers."""

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
    """What a user wrote.

    `pasted`: it begins with pasted text, so it is a message, even if it looks like a command.
    `plain`: the triple quotes in it are pasted too, so they are text.
    """

    text: str
    pasted: bool = False
    plain: bool = False


def without_line_end(text: str) -> str:
    """The text without the line ending that sent it."""
    if text.endswith("\n"):
        return text.removesuffix("\n").removesuffix("\r")
    return text


def command_of(text: str) -> tuple[str, str] | None:
    """(name, the rest as it is) of a line that is a command; None for a message."""
    match = re.match(r"/(\S*)\s?", text)
    if match is None:
        return None
    return match[1], text[match.end() :]


def is_open(text: str) -> bool:
    """Whether the message, or the text of a command, is a block in triple quotes that is open."""
    command = command_of(text)
    if command is not None:
        _, text = command
    opened, _ = block(text)
    return opened


def unquoted(text: str) -> str | None:
    """The content of a block in triple quotes, if the text is nothing else; else None."""
    _, content = block(text)
    return content


def block(text: str) -> tuple[bool, str | None]:
    """(whether a text begins with a block that is open, the content of a block that is all of it).

    Three quotes at the start of a line begin a block, unless there are more on that line, as in a
    docstring of one line. Quotes alone on their line end where quotes are alone again, and whatever
    is between is the content; quotes with text after them end at quotes at the end of a line.
    """
    first, *rest = text.split("\n")
    if not first.startswith(QUOTES) or first.count(QUOTES) > 1:
        return False, None
    first = first.removeprefix(QUOTES)
    alone = not first.strip()
    for number, line in enumerate(rest):
        if not closes(line, alone):
            continue
        if number < len(rest) - 1:
            return False, None  # a text that continues after its quotes
        inside = rest[:number]
        if not alone:
            inside.insert(0, first)
        last = line.rstrip().removesuffix(QUOTES)
        if last.strip():
            inside.append(last)
        return False, "\n".join(inside)
    return True, None


def closes(line: str, alone: bool) -> bool:
    """Whether a line closes a block, whose opening quotes were alone on their line or not."""
    if alone:
        return line.strip() == QUOTES
    return line.rstrip().endswith(QUOTES)


def words_of(rest: str) -> list[str]:
    """The words of a command's arguments, which may be quoted as in a shell."""
    try:
        return shlex.split(rest)
    except ValueError as error:
        raise UsageError(f"{rest!r}: {str(error).lower()}") from None


def first_word(rest: str) -> tuple[str, str]:
    """The first word, which may be quoted, and the rest as it is."""
    stream = io.StringIO(rest)
    lexer = shlex.shlex(stream, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        return lexer.get_token() or "", stream.read()
    except ValueError as error:
        raise UsageError(f"{rest!r}: {str(error).lower()}") from None


def one_path(rest: str, usage: str) -> Path:
    """The only argument of a command that takes a file."""
    words = words_of(rest)
    if len(words) != 1:
        raise UsageError(f"{usage} takes one file")
    return path_of(words[0])


def path_of(word: str) -> Path:
    """Raises UsageError for an unknown home folder, and for a name that no file can have."""
    if "\0" in word:
        raise UsageError(f"{word!r:.60} has a NUL character, which no file name can have")
    try:
        return Path(word).expanduser()
    except RuntimeError:
        raise UsageError(f"{word}: there is no such home folder") from None


def seed_of(rest: str) -> int | None:
    """The argument of /regen."""
    if not rest:
        return None
    return whole_number("seed", rest)


def whole_number(name: str, text: str) -> int:
    """A whole number that a user wrote.

    Raises UsageError if it is not one, or has more digits than any setting.
    """
    if not is_id(text):
        raise UsageError(f"{name} is {shown(text)}: it must be a whole number")
    return int(text)


def expect_free(path: Path) -> Path:
    """The path. Raises UsageError if it exists: no file is overwritten."""
    try:
        taken = path.exists()
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
    if taken:
        raise UsageError(f"{path} exists: choose another name")
    return path
