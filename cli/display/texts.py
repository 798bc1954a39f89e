"""Texts that a user names: a file, or standard input as `-`."""

from __future__ import annotations

import sys
from pathlib import Path

from minigen.errors import MinigenError, UsageError


def display_name(name: str) -> str:
    """What to call a text in a message."""
    return "standard input" if name == "-" else name


def read_text(name: str) -> str:
    """The whole text, without a byte order mark.

    Raises MinigenError if it cannot be read or is not UTF-8.
    """
    if name == "-" and sys.stdin is None:
        raise UsageError("standard input is closed: name a file")
    try:
        if name == "-":
            data = sys.stdin.buffer.read()
        else:
            data = Path(name).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise MinigenError(f"cannot read {display_name(name)}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise MinigenError(
            f"{display_name(name)} is not UTF-8: byte {byte:#04x} at offset {error.start}"
        ) from error
