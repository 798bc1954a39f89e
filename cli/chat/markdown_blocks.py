"""Markdown that comes in pieces, cut into blocks that can be rendered one by one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

BLANK = " \t"
PARTS = re.compile(r"[^\n]+|\n")
HEADING = re.compile(r" {0,3}#{1,6}(?:[ \t]|$)")
ITEM = re.compile(r"^ {0,3}(?:[-*+]|\d{1,9}[.)])(?:[ \t]|$)", re.MULTILINE)
# A fence may be indented as far as it likes, as in a list, and begin in the line of an item or a quote.
FENCE = re.compile(r"((?:[ \t]|[-*+][ \t]|\d{1,9}[.)][ \t]|>)*)(`{3,}(?=[^`]*$)|~{3,})")
CLOSING = re.compile(r"[ \t>]*(`{3,}|~{3,})[ \t]*")


class Block(NamedTuple):
    """A paragraph, list, table, quote, heading or fence, with what followed without a blank line."""

    text: str  # as it was shown; ends with a line feed unless the answer ended before
    indent: int  # columns: above 0 it goes on with the item of a list in an earlier block


class Blocks:
    """Pieces in; out comes what to show of them, and the blocks that they complete.

    White space in front of a line is shown with what follows it, and blank lines only where they are part of a block:
    the others become one empty line, shown in front of the next block. Takes time in proportion to the text.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []  # of the block that is under way
        self.line: list[str] = []  # its last line, in pieces
        self.blanks: list[str] = []  # white space that the current line has begun with
        self.fence: tuple[str, bool] | None = None  # the fence that is open, and whether it is in a quote
        self.first = True  # no block has ended yet
        self.in_list = False

    def feed(self, text: str) -> Iterator[tuple[str, Block | None]]:
        """Pairs of the next text to show and the block that is complete with it, if any."""
        shown: list[str] = []
        for part in PARTS.findall(text):
            if part == "\n":
                if self.end_line(shown):
                    yield "".join(shown), self.finish()
                    shown = []
            elif self.line:
                self.line.append(part)
                shown.append(part)
            else:
                body = part.lstrip(BLANK)
                self.blanks.append(part[: len(part) - len(body)])
                if body:
                    if not self.lines and not self.first:
                        shown.append("\n")
                    self.line.append("".join(self.blanks) + body)
                    self.blanks = []
                    shown.append(self.line[0])
        if shown:
            yield "".join(shown), None

    def end_line(self, shown: list[str]) -> bool:
        """Ends the line that is under way; whether its block ends with it."""
        line = "".join(self.line or self.blanks)
        blank = not self.line
        self.line, self.blanks = [], []
        if blank and (self.fence is None or self.fence[1]):
            return bool(self.lines)
        self.lines.append(line + "\n")
        shown.append("\n" if not blank else self.lines[-1])
        return self.ends(line)

    def ends(self, line: str) -> bool:
        """Whether a block ends with this line, which is not blank outside a fence."""
        if self.fence is not None:
            mark, quoted = self.fence
            if not quoted or line.lstrip(BLANK).startswith(">"):
                found = CLOSING.fullmatch(line)
                if found is None or not found[1].startswith(mark):
                    return False
                self.fence = None
                return not quoted
            self.fence = None  # its quote is over
        found = FENCE.match(line)
        if found is not None:
            self.fence = found[2], ">" in found[1]
            return False
        return HEADING.match(line) is not None

    def finish(self) -> Block | None:
        """The block that is under way, as far as it has come; the next text begins another."""
        text = "".join([*self.lines, *self.line])
        self.lines, self.line, self.blanks, self.fence = [], [], [], None
        if not text:
            return None
        self.first = False
        indent = len(indentation(text))
        if indent < 2 or not self.in_list:
            indent, self.in_list = 0, ITEM.search(text) is not None
        return Block(text, indent)


def indentation(line: str) -> str:
    """The white space in front, as Markdown counts it."""
    return line[: len(line) - len(line.lstrip(BLANK))].expandtabs(4)


def dedent(text: str, indent: int) -> str:
    """`text` with each line as many columns further to the left, as far as it is indented."""
    lines = (indentation(line)[indent:] + line.lstrip(BLANK) for line in text.split("\n"))
    return "\n".join(lines) if indent else text
