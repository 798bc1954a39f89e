"""Markdown that comes in pieces, cut into blocks that can be rendered one by one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

BLANK = " \t"
PARTS = re.compile(r"[^\n]+|\n")
HEADING = re.compile(r" {0,3}#{1,6}(?:[ \t]|$)")
ITEM = re.compile(r"^ {0,3}(?:[-*+]|\d{1,9}[.)])(?:[ \t]|$)", re.MULTILINE)
# A fence may be indented, as in a list, and begin in the line of an item or of a quote.
FENCE = re.compile(r"((?:[ \t]|[-*+][ \t]|\d{1,9}[.)][ \t]|>)*)(`{3,}(?=[^`]*$)|~{3,})")
CLOSING = re.compile(r"[ \t>]*(`{3,}|~{3,})[ \t]*")


class Block(NamedTuple):
    """A paragraph, list, table, quote, heading or fence, and what follows without a blank line."""

    text: str  # as it was shown; ends with a line feed unless the answer ended before
    indent: int  # columns; above 0 the block continues a list item of an earlier block


class Blocks:
    """Takes pieces of text, and gives the text to show and the blocks that are complete.

    White space before a line is shown together with the text after it. Blank lines are shown only
    as part of a block; between blocks they become one empty line, shown before the next block.
    Takes time in proportion to the text.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []  # of the current block
        self.line: list[str] = []  # the current line, in pieces
        self.blanks: list[str] = []  # white space that the current line begins with
        # The fence that is open, and whether it is in a quote.
        self.fence: tuple[str, bool] | None = None
        self.first = True  # no block has ended yet
        self.in_list = False

    def feed(self, text: str) -> Iterator[tuple[str, Block | None]]:
        """Pairs of the next text to show, and the block that is complete with it, if any."""
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
        """End the current line; returns whether its block ends with it."""
        line = "".join(self.line or self.blanks)
        blank = not self.line
        self.line, self.blanks = [], []
        if blank and (self.fence is None or self.fence[1]):
            return bool(self.lines)
        self.lines.append(line + "\n")
        if blank:
            shown.append(self.lines[-1])
        else:
            shown.append("\n")
        return self.ends(line)

    def ends(self, line: str) -> bool:
        """Whether a block ends with this line, which is not blank outside a fence."""
        if self.fence is not None:
            mark, quoted = self.fence
            if not quoted or line.lstrip(BLANK).startswith(">"):
                closing = CLOSING.fullmatch(line)
                if closing is None or not closing[1].startswith(mark):
                    return False
                self.fence = None
                return not quoted
            self.fence = None  # its quote is over
        opening = FENCE.match(line)
        if opening is not None:
            self.fence = opening[2], ">" in opening[1]
            return False
        return HEADING.match(line) is not None

    def finish(self) -> Block | None:
        """The current block as it is; the next text begins another one."""
        text = "".join([*self.lines, *self.line])
        self.lines, self.line, self.blanks, self.fence = [], [], [], None
        if not text:
            return None
        self.first = False
        indent = len(indentation(text))
        if indent < 2 or not self.in_list:
            indent = 0
            self.in_list = ITEM.search(text) is not None
        return Block(text, indent)


def indentation(line: str) -> str:
    """The white space that a line begins with, as Markdown counts it."""
    return line[: len(line) - len(line.lstrip(BLANK))].expandtabs(4)


def dedent(text: str, indent: int) -> str:
    """`text` with each line moved to the left, by `indent` columns or as far as it is indented."""
    if not indent:
        return text
    lines = [indentation(line)[indent:] + line.lstrip(BLANK) for line in text.split("\n")]
    return "\n".join(lines)
