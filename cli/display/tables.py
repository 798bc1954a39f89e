"""Aligned columns: styled on a terminal, plain text everywhere else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import StringIO

WIDE = 1_000_000  # columns of what is no terminal: nothing is ever cut or wrapped there


def sizes_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """How wide each column is, in columns of a terminal."""
    from rich.cells import cell_len

    return [max(map(cell_len, column)) for column in zip(head, *rows, strict=True)]


def natural_width(head: Sequence[str], rows: Sequence[Sequence[str]], gap: int = 2) -> int:
    """The columns of a terminal that a table takes with nothing cut."""
    return sum(sizes_of(head, rows)) + gap * (len(head) - 1)


def render(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
    terminal: bool,
    left: Sequence[str] = (),
    gap: int = 2,
    sizes: Sequence[int] | None = None,
) -> str:
    """Aligned columns, numbers to the right but those of `left`; styled for a terminal unless NO_COLOR says no.

    `sizes` widens columns, so that several tables line up. Where `width` is too small, the widest columns of `left` are
    cut, with an ellipsis.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    own = list(sizes or sizes_of(head, rows))
    cut = [i for i, name in enumerate(head) if name in left]
    room = width - gap * (len(head) - 1) - sum(size for i, size in enumerate(own) if i not in cut)
    while cut and sum(own[i] for i in cut) > max(room, len(cut)):
        own[max(cut, key=lambda i: own[i])] -= 1
    grid = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold")
    for name, size in zip(head, own, strict=True):
        grid.add_column(
            Text(name), justify="left" if name in left else "right", width=size, no_wrap=True, overflow="ellipsis"
        )
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    stream = StringIO()
    Console(file=stream, width=width, force_terminal=terminal, highlight=False).print(grid)
    return "".join(line.rstrip() + "\n" for line in stream.getvalue().split("\n")[:-1])


def wrapped(text: str, width: int) -> str:
    """The text in lines of at most so many columns, broken between words where there are any."""
    from rich.console import Console
    from rich.text import Text

    stream = StringIO()
    Console(file=stream, width=width, highlight=False).print(Text(text))
    return "\n".join(line.rstrip() for line in stream.getvalue().split("\n")[:-1])


def screen() -> tuple[int, bool]:
    """(columns, whether stdout is a terminal)."""
    if not sys.stdout.isatty():
        return WIDE, False
    from rich.console import Console

    return Console().width, True
