"""Text on a terminal: what it must not see, and how far a text moves its cursor."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and line feed
TAB = 8  # columns between the stops of a tab
# What neighbours change the width of, or what changes theirs, on some terminals and not on others: skin tones, regional
# indicators (two make a flag), and the parts that a Hangul syllable is composed of.
JOINING = ((0x1F3FB, 0x1F3FF), (0x1F1E6, 0x1F1FF), (0x1160, 0x11FF), (0xD7B0, 0xD7FF))


def harmless(text: str) -> str:
    """The text with U+FFFD for each control character: a terminal must not obey what a model or a file says."""
    return CONTROL.sub("\ufffd", text)


@lru_cache(maxsize=4096)
def width_of(char: str) -> int | None:
    """The columns that a character takes; None where terminals disagree.

    They do about what is invisible (category C: joiners, marks of direction, what a newer Unicode has defined), about
    variation selectors and Indic vowels (marks that do not combine), and about scripts that run from right to left.
    """
    category = unicodedata.category(char)
    if category == "Mn" and unicodedata.combining(char):
        return 0
    if category[0] in "CM" or category in ("Zl", "Zp") or unicodedata.bidirectional(char) in ("R", "AL", "AN"):
        return None
    if any(first <= ord(char) <= last for first, last in JOINING):
        return None
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def rows_down(text: str, columns: int) -> int | None:
    """How many rows below its beginning, at the start of a line, text leaves the cursor; None if that is not certain.

    A character that does not fit goes to the next row; one that fills the last column leaves the cursor in its row.
    """
    down = -1
    for line in text.split("\n"):
        down, column = down + 1, 0
        if line.isascii() and line.isprintable():
            down += max(0, (len(line) - 1) // columns)
            continue
        for char in line:
            if char == "\t":
                if column == columns:  # some terminals leave the cursor behind the edge, some take it back
                    return None
                column = min((column // TAB + 1) * TAB, columns - 1)
                continue
            width = width_of(char)
            if width is None:
                return None
            if column + width > columns:
                down, column = down + 1, 0
            column += width
    return down
