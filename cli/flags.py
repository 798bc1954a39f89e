"""The names of flags, and which words may be their values."""

from __future__ import annotations

import argparse
from pathlib import Path


def plain(flag: str) -> str:
    """The name of a flag as `minigen.reading.spellings` has it."""
    return flag.lstrip("-").replace("-", "_")


def as_flag(name: str) -> str:
    """The inverse of `plain`."""
    if len(name) == 1:
        return f"-{name}"
    return f"--{name.replace('_', '-')}"


def begins_with_dash(word: str) -> bool:
    """Whether a word begins with a dash and is more than that."""
    return len(word) > 1 and word.startswith("-")


def takes_text(action: argparse.Action) -> bool:
    """Whether a flag's value may be any text."""
    takes_a_value = action.nargs in (None, "?", "+")
    return takes_a_value and action.type in (None, str, Path) and action.choices is None
