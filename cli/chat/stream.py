"""Showing an answer on a terminal while it is generated."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TextIO

from ..display.terminal import harmless, rows_down
from .markdown_blocks import Block, Blocks
from .markdown_render import render

# A terminal that supports this shows the text between the two at once; others ignore it.
BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"
FALLBACK = (80, 24)  # columns and rows of a terminal of unknown size


class AnswerView:
    """Shows one answer while it streams, from the start of a line.

    On a terminal text appears at once as it is. A block of Markdown that is complete is replaced by
    its rendering in one write, if it is certain how many rows its text takes. A pipe gets only the
    text. Anything else that moves the cursor, such as the echo of a key, must be off from the first
    piece to the last.
    """

    def __init__(
        self,
        out: TextIO,
        *,
        terminal: bool,
        markdown: bool,
        size: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        self.out, self.terminal = out, terminal
        self.size = size or (lambda: size_of(out))
        styled = os.environ.get("TERM") not in ("dumb", "unknown")
        self.markdown = terminal and markdown and styled
        self.pieces: list[str] = []
        self.blocks = Blocks()
        self.began_at: tuple[int, int] | None = None  # terminal size when the block began
        # Whether the terminal still has that size, and every write was completed.
        self.certain = True
        self.begun = False  # something is on the screen
        self.line_open = False  # the cursor is not at the start of a line
        self.carriage_return = False  # withheld: a line feed may follow

    @property
    def text(self) -> str:
        """The answer so far, as it came."""
        self.pieces = ["".join(self.pieces)]
        return self.pieces[0]

    def write(self, piece: str) -> None:
        """Show the next piece of text, which consists of whole characters."""
        self.pieces.append(piece)
        # Not certain, if Ctrl-C comes before the text is on the screen.
        certain, self.certain = self.certain, False
        for text, block in self.parts(piece):
            size = self.size() if self.markdown else FALLBACK
            if self.began_at is None:
                self.began_at, certain = size, True
            certain = certain and size == self.began_at
            self.show(text)
            if block is not None:
                self.replace(block, certain)
                self.began_at = None
        self.out.flush()
        self.certain = certain

    def finish(self) -> None:
        """End the last block and the last line of the answer, which may have been interrupted."""
        block = self.blocks.finish()
        if block is not None:
            self.replace(block, self.certain and self.size() == self.began_at)
        if self.line_open:
            self.show("\n")
        self.out.flush()

    def parts(self, piece: str) -> Iterator[tuple[str, Block | None]]:
        """The text that a piece adds to the screen, each part with the block that it completes."""
        if not self.begun:
            piece = piece.lstrip()
        if not self.terminal:
            yield piece, None
            return
        if self.carriage_return:
            piece, self.carriage_return = "\r" + piece, False
        if piece.endswith("\r"):
            piece, self.carriage_return = piece[:-1], True
        piece = harmless(piece.replace("\r\n", "\n"))
        if self.markdown:
            yield from self.blocks.feed(piece)
        else:
            yield piece, None

    def show(self, text: str) -> None:
        if text:
            self.begun = self.line_open = True  # even if Ctrl-C comes while it is written
            self.out.write(text)
            self.line_open = not text.endswith(("\n", END))

    def replace(self, block: Block, certain: bool) -> None:
        """Replace the text of a block, at whose end the cursor is, by its rendering."""
        if not certain or self.began_at is None:
            return
        columns, rows = self.began_at
        down = rows_down(block.text, columns)
        if down is None or down >= rows:  # its first row may have left the screen
            return
        rendering = render(block, columns)
        if rendering is not None:
            up = f"\x1b[{down}A" * (down > 0)
            self.show(f"{BEGIN}{up}\r\x1b[J{rendering}{END}")


def size_of(out: TextIO) -> tuple[int, int]:
    """(columns, rows) of the terminal itself; the variable COLUMNS may be different."""
    try:
        columns, rows = os.get_terminal_size(out.fileno())
    except (OSError, ValueError):
        return FALLBACK
    if columns and rows:
        return columns, rows
    return FALLBACK
