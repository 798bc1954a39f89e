"""What `bench` says: a table for people, Markdown to commit, CSV and JSON for programs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from io import StringIO
from typing import Any

from minigen.backends.memory import gib

from ..display.tables import natural_width, render, screen, sizes_of, wrapped

FORMATS = ("table", "md", "csv", "json", "jsonl")
NONE = "-"  # a value that there is not
NAMES = ("model", "backend", "dtype", "quant")  # the columns that say which of the models a row is of
LEFT = (*NAMES, "test", "verdict")
Columns = Mapping[str, Callable[[Any], str]]  # heading -> a row's cell


def write(
    output: str, head: dict[str, Any], rows: Sequence[Any], columns: Columns, about: Sequence[str], notes: Sequence[str]
) -> None:
    """Prints rows, which are dataclasses, in one of FORMATS.

    `head` is what stands beside them in JSON; `about` and `notes` are the lines above and below a table.
    """
    objects = [asdict(row) for row in rows]
    if output == "json":
        print(json.dumps(head | {"results": objects}, ensure_ascii=False))
    elif output == "jsonl":
        for row in objects:
            print(json.dumps(row | head, ensure_ascii=False))
    elif output == "csv":
        print(as_csv(objects), end="")
    elif output == "md":
        print(as_markdown(rows, columns, [*about, *notes]), end="")
    else:
        print(as_table(rows, columns, about, notes, *screen()), end="")


def as_csv(objects: Sequence[Mapping[str, Any]]) -> str:
    """A line a row; a list is one field, with spaces between its numbers."""
    stream = StringIO()
    writer = csv.DictWriter(stream, list(objects[0]), lineterminator="\n")
    writer.writeheader()
    for row in objects:
        writer.writerow({name: " ".join(map(str, x)) if isinstance(x, list) else x for name, x in row.items()})
    return stream.getvalue()


def as_markdown(rows: Sequence[Any], columns: Columns, lines: Sequence[str]) -> str:
    """A table with every column, then the lines as a list."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"

    table = line(list(columns)) + line(["---" if name in LEFT else "---:" for name in columns])
    table += "".join(line([cell(row) for cell in columns.values()]) for row in rows)
    return table + "".join(f"{chr(10) * (i == 0)}- {text}\n" for i, text in enumerate(lines))


def as_table(
    rows: Sequence[Any], columns: Columns, about: Sequence[str], notes: Sequence[str], width: int, terminal: bool
) -> str:
    """Names that are the same for all rows are not repeated; those that do not fit beside the numbers stand above them.

    No number is ever cut: what does not fit an even narrower terminal is left to it to wrap.
    """
    names = [name for name in NAMES if len({columns[name](row) for row in rows}) > 1]
    own = [name for name in columns if name not in NAMES and any(columns[name](row) not in ("", NONE) for row in rows)]

    def cells(shown: Sequence[str], some: Sequence[Any]) -> list[list[str]]:
        return [[columns[name](row) for name in shown] for row in some]

    parts = [f"{wrapped(text, width)}\n" for text in about] + ["\n"] * bool(about)
    head = [*names, *own]
    if natural_width(head, cells(head, rows)) <= width or not names:
        parts.append(fitted(head, cells(head, rows), cells(head, rows), width, terminal))
    else:
        groups: dict[str, list[Any]] = {}
        for row in rows:
            groups.setdefault(", ".join(columns[name](row) for name in names), []).append(row)
        for title, group in groups.items():
            parts.append(f"{chr(10) if title != next(iter(groups)) else ''}{title}\n")
            parts.append(fitted(own, cells(own, group), cells(own, rows), width, terminal))
    parts += ["\n"] * bool(notes) + [f"{wrapped(text, width)}\n" for text in notes]
    return "".join(parts)


def fitted(
    head: Sequence[str], rows: Sequence[Sequence[str]], every: Sequence[Sequence[str]], width: int, terminal: bool
) -> str:
    """Columns as wide as all rows of all groups want them, closer together where the terminal is narrow."""
    gap = 2 if natural_width(head, every) <= width else 1
    return render(head, rows, max(width, natural_width(head, every, gap)), terminal, LEFT, gap, sizes_of(head, every))


# -- numbers --
def rate(x: float | None) -> str:
    """Four digits or more."""
    if x is None:
        return NONE
    return f"{x:,.0f}" if x >= 1000 else f"{x:.1f}" if x >= 100 else f"{x:.2f}" if x >= 10 else f"{x:.3f}"


def spread(mean: float, sd: float | None) -> str:
    """The mean and the standard deviation, to the same place."""
    digits = len(rate(mean).partition(".")[2])
    return rate(mean) if sd is None else f"{rate(mean)} ± {sd:,.{digits}f}"


def milliseconds(x: float | None) -> str:
    return NONE if x is None else f"{x:,.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}"


def seconds(x: float | None) -> str:
    return NONE if x is None else f"{x:.3f}"


def size(x: float) -> str:
    return gib(x) if x >= 2**30 else f"{x / 2**20:,.1f} MiB"
