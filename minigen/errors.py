"""What a user can cause, drawn as a tree. Each message is one line: what, which value, what to do.

Our own mistakes are asserts, never these.
"""

from __future__ import annotations

from collections.abc import Sequence

LONGEST = 6000  # characters of a message
SHOWN = 80  # characters of a value in it


def shown(value: object, most: int = SHOWN) -> str:
    """A value as a message quotes it: what `repr` says, and of a long one the beginning."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, lists a thousand deep
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def first_of(names: Sequence[str], most: int) -> str:
    """The first names of a list, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def first_line(error: BaseException) -> str:
    """What a library says of its fault, without what it adds in further lines; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class MinigenError(Exception):
    """Something a user can cause and mend; the command line prints it as one line and exits with `exit_code`.

    Whatever a file put into the message, it stays short enough to read: of a long one the middle is left out.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        if len(message) > LONGEST:
            message = f"{message[: LONGEST * 3 // 4]} [...] {message[-LONGEST // 5 :]}"
        super().__init__(message)


class UsageError(MinigenError):
    """The command or the call itself is wrong: an unknown setting, a value out of its range."""

    exit_code = 2


class SourceError(MinigenError):
    """No model could be found or fetched at the given place."""


class CheckpointError(MinigenError):
    """A model folder whose config or weights cannot be used."""


class TokenizerError(MinigenError):
    """A tokenizer is missing or broken, or a text cannot be encoded with it."""


class ChatError(MinigenError):
    """A conversation that a chat template refuses, or that does not fit."""


class ContextError(MinigenError):
    """More tokens than the model's context, or than a state has room for."""


class SharedError(MinigenError):
    """What all processes that train together see alike: the first of them says it, the others only end."""


class BackendError(MinigenError):
    """A framework, device or dtype that is not available here."""
