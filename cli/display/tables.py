"""Aligned columns: styled on a terminal, plain text everywhere else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import StringIO

WIDE = 1_000_000  # columns, if the output is not a terminal: nothing is cut or wrapped


def sizes_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """The width of each column, in columns of a terminal."""
    from rich.cells import cell_len

    widths = [0] * len(head)
    for row in (head, *rows):
        for index, cell in enumerate(row):
            widths[index] = max(widths[index], cell_len(cell))
    return widths


def natural_width(head: Sequence[str], rows: Sequence[Sequence[str]], gap: int = 2) -> int:
    """The width of a table of which nothing is cut."""
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
    """The rows as aligned columns.

    Columns are aligned to the right, those of `left` to the left. For a terminal the text is
    styled, unless NO_COLOR is set. `sizes` widens columns, so that several tables line up. If
    `width` is too small, the widest columns of `left` are cut, with an ellipsis.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    widths = list(sizes or sizes_of(head, rows))
    shrink(widths, [index for index, name in enumerate(head) if name in left], width, gap)
    grid = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold")
    for name, size in zip(head, widths, strict=True):
        grid.add_column(
            Text(name),
            justify="left" if name in left else "right",
            width=size,
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    stream = StringIO()
    Console(file=stream, width=width, force_terminal=terminal, highlight=False).print(grid)
    return "".join(line.rstrip() + "\n" for line in stream.getvalue().split("\n")[:-1])


def shrink(widths: list[int], columns: Sequence[int], width: int, gap: int) -> None:
    """Make the widest of `columns` narrower, until all widths and gaps fit into `width`."""
    excess = sum(widths) + gap * (len(widths) - 1) - width
    spare = sum(widths[column] for column in columns) - len(columns)  # each keeps one character
    for _ in range(min(excess, spare)):
        widest = columns[0]
        for column in columns:
            if widths[column] > widths[widest]:
                widest = column
        widths[widest] -= 1


def wrapped(text: str, width: int) -> str:
    """The text in lines of at most `width` columns, broken between words if possible."""
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
