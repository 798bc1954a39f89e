"""Errors that a user can cause, and how they relate.

Each message is one line: what is wrong, which value, what to do. Our own mistakes are asserts.
"""

from __future__ import annotations

from collections.abc import Sequence

LONGEST = 6000  # characters of a message
SHOWN = 80  # characters of a value in it


def shown(value: object, most: int = SHOWN) -> str:
    """A value as a message quotes it: its `repr`, truncated if it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, lists a thousand deep
        return f"a {type(value).__name__} too large to show"
    if len(text) > most:
        text = f"{text[: most - 3]}..."
    return text


def first_of(names: Sequence[str], most: int) -> str:
    """The first names of a list, and how many more there are."""
    listed = ", ".join(names[:most])
    more = len(names) - most
    if more > 0:
        listed += f" and {more} more"
    return listed


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its class if the message is empty."""
    for line in str(error).strip().splitlines():
        return line
    return type(error).__name__


class MinigenError(Exception):
    """An error that a user can cause and fix.

    The command line prints it as one line and exits with `exit_code`. The message stays short
    enough to read, whatever a file put into it: the middle of a long one is left out.
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
    """A model cannot be found or downloaded."""


class CheckpointError(MinigenError):
    """A model folder whose config or weights cannot be used."""


class TokenizerError(MinigenError):
    """A tokenizer is missing or broken, or a text cannot be encoded with it."""


class ChatError(MinigenError):
    """A conversation is refused by the chat template, or does not fit."""


class ContextError(MinigenError):
    """More tokens than the model's context, or than a state has room for."""


class SharedError(MinigenError):
    """An error that every training process sees: rank 0 reports it, the others exit silently."""


class BackendError(MinigenError):
    """A framework, device or dtype that is not available here."""
