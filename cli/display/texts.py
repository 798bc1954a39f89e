"""Texts that a user names: a file, or standard input as `-`."""

from __future__ import annotations

import sys
from pathlib import Path

from minigen.errors import MinigenError, UsageError


def shown(name: str) -> str:
    """What to call a text in a message."""
    return "standard input" if name == "-" else name


def read_text(name: str) -> str:
    """The whole text, a byte order mark aside. Raises MinigenError where it cannot be read or is not UTF-8."""
    if name == "-" and sys.stdin is None:
        raise UsageError("standard input is closed: name a file")
    try:
        return (sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()).decode("utf-8-sig")
    except OSError as error:
        raise MinigenError(f"cannot read {shown(name)}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise MinigenError(f"{shown(name)} is not UTF-8: byte {byte:#04x} at offset {error.start}") from error
