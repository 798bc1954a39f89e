"""Text on a terminal: removing control characters, and computing how far text moves the cursor."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all except tab and line feed
TAB = 8  # columns between tab stops
# Ranges of characters that combine with a neighbor on some terminals only: skin tones, regional
# indicators (two make a flag), and the parts that a Hangul syllable is composed of.
JOINING = ((0x1F3FB, 0x1F3FF), (0x1F1E6, 0x1F1FF), (0x1160, 0x11FF), (0xD7B0, 0xD7FF))


def harmless(text: str) -> str:
    """The text with U+FFFD for each control character.

    Text of a model or a file must not control the terminal.
    """
    return CONTROL.sub("\ufffd", text)


@lru_cache(maxsize=4096)
def width_of(char: str) -> int | None:
    """The number of columns of a character; None if terminals disagree about it.

    They disagree about invisible characters (category C: joiners, direction marks, characters that
    a newer Unicode defines), about variation selectors and Indic vowels (marks that do not
    combine), and about scripts that run from right to left.
    """
    category = unicodedata.category(char)
    if category == "Mn" and unicodedata.combining(char):
        return 0
    if category[0] in "CM" or category in ("Zl", "Zp"):
        return None
    if unicodedata.bidirectional(char) in ("R", "AL", "AN"):
        return None
    for first, last in JOINING:
        if first <= ord(char) <= last:
            return None
    if unicodedata.east_asian_width(char) in "WF":
        return 2
    return 1


def rows_down(text: str, columns: int) -> int | None:
    """How many rows a text that begins a row moves the cursor down; None if uncertain.

    A character that does not fit goes to the next row; one that fills the last column leaves the
    cursor in its row.
    """
    down = -1
    for line in text.split("\n"):
        down += 1
        column = 0
        if line.isascii() and line.isprintable():
            down += max(0, (len(line) - 1) // columns)
            continue
        for char in line:
            if char == "\t":
                if column == columns:  # terminals disagree where the cursor is then
                    return None
                column = min((column // TAB + 1) * TAB, columns - 1)
                continue
            width = width_of(char)
            if width is None:
                return None
            if column + width > columns:
                down += 1
                column = 0
            column += width
    return down
