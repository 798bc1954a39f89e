"""What a line of a chat holds: quoted messages, words, files, numbers."""

from __future__ import annotations

import shlex
from pathlib import Path

from minigen.errors import UsageError

DIGITS = 20  # of 2**64, which no seed reaches


def is_open(text: str) -> bool:
    """Whether a triple quote has been opened and not closed, at the beginning of a message or in a command."""
    if text.startswith("/"):
        return text.count('"""') % 2 == 1
    return text.lstrip().startswith('"""') and (len(text.strip()) < 6 or not text.rstrip().endswith('"""'))


def unquoted(text: str) -> str | None:
    """The text between triple quotes, where it is all there is; else None."""
    stripped = text.strip()
    if stripped.startswith('"""') and stripped.endswith('"""') and len(stripped) >= 6:
        return stripped[3:-3].removeprefix("\n").removesuffix("\n")
    return None


def words_of(rest: str) -> list[str]:
    try:
        return shlex.split(rest)
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
    if not (text.isascii() and text.isdecimal() and len(text) <= DIGITS):
        raise UsageError(f"{name} is {text[:40]!r}: it must be a whole number")
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
