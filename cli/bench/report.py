"""The output of `bench`: a table for people, Markdown to commit, CSV and JSON for programs."""

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
NONE = "-"  # a value that does not exist
SUBJECT_COLUMNS = ("model", "backend", "dtype", "quant")  # which model a row is of
LEFT = (*SUBJECT_COLUMNS, "test", "verdict")  # aligned to the left
Columns = Mapping[str, Callable[[Any], str]]  # heading -> a row's cell
Cells = list[list[str]]


def write(
    output: str,
    head: dict[str, Any],
    rows: Sequence[Any],
    columns: Columns,
    about: Sequence[str],
    notes: Sequence[str],
) -> None:
    """Print rows, which are dataclasses, in one of FORMATS.

    `head` is added to them in JSON; `about` and `notes` are the lines above and below a table.
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
    """One line per row; a list is one field, with spaces between its numbers."""
    stream = StringIO()
    writer = csv.DictWriter(stream, list(objects[0]), lineterminator="\n")
    writer.writeheader()
    for row in objects:
        fields = dict(row)
        for name, value in row.items():
            if isinstance(value, list):
                fields[name] = " ".join(str(number) for number in value)
        writer.writerow(fields)
    return stream.getvalue()


def as_markdown(rows: Sequence[Any], columns: Columns, lines: Sequence[str]) -> str:
    """A table with every column, then the lines as a list."""
    rules = ["---" if name in LEFT else "---:" for name in columns]
    text = markdown_row(list(columns)) + markdown_row(rules)
    for row in rows:
        text += markdown_row([cell(row) for cell in columns.values()])
    if lines:
        text += "\n"
    for line in lines:
        text += f"- {line}\n"
    return text


def markdown_row(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |\n"


def as_table(
    rows: Sequence[Any],
    columns: Columns,
    about: Sequence[str],
    notes: Sequence[str],
    width: int,
    terminal: bool,
) -> str:
    """The rows as a table for people.

    The names of a model are shown only if they differ between rows, in columns or, if those do not
    fit, above the rows of each model. No number is ever cut: a table that is still too wide is
    wrapped by the terminal.
    """
    names, figures = used_columns(rows, columns)
    parts = [f"{wrapped(text, width)}\n" for text in about]
    if about:
        parts.append("\n")
    head = [*names, *figures]
    cells = cells_of(rows, columns, head)
    if natural_width(head, cells) <= width or not names:
        parts.append(fitted(head, cells, cells, width, terminal))
    else:
        cells = cells_of(rows, columns, figures)
        tables = []
        for title, group in groups_by_title(rows, columns, names).items():
            group_cells = cells_of(group, columns, figures)
            tables.append(f"{title}\n{fitted(figures, group_cells, cells, width, terminal)}")
        parts.append("\n".join(tables))
    if notes:
        parts.append("\n")
    parts += [f"{wrapped(text, width)}\n" for text in notes]
    return "".join(parts)


def used_columns(rows: Sequence[Any], columns: Columns) -> tuple[list[str], list[str]]:
    """The names that differ between rows, and the other columns that have any value."""
    names = []
    figures = []
    for name, cell in columns.items():
        values = {cell(row) for row in rows}
        if name in SUBJECT_COLUMNS:
            if len(values) > 1:
                names.append(name)
        elif not values <= {"", NONE}:
            figures.append(name)
    return names, figures


def cells_of(rows: Sequence[Any], columns: Columns, names: Sequence[str]) -> Cells:
    """The cells of some columns."""
    cells = []
    for row in rows:
        cells.append([columns[name](row) for name in names])
    return cells


def groups_by_title(
    rows: Sequence[Any], columns: Columns, names: Sequence[str]
) -> dict[str, list[Any]]:
    """The rows by the names of their model."""
    groups: dict[str, list[Any]] = {}
    for row in rows:
        title = ", ".join(columns[name](row) for name in names)
        groups.setdefault(title, []).append(row)
    return groups


def fitted(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    all_rows: Sequence[Sequence[str]],
    width: int,
    terminal: bool,
) -> str:
    """Rows in columns as wide as `all_rows` need; closer together if the terminal is narrow."""
    gap = 2
    if natural_width(head, all_rows) > width:
        gap = 1
    wide = max(width, natural_width(head, all_rows, gap))
    return render(head, rows, wide, terminal, LEFT, gap, sizes_of(head, all_rows))


# -- numbers --
def rate(x: float | None) -> str:
    """A number with four digits or more."""
    if x is None:
        return NONE
    if x >= 1000:
        return f"{x:,.0f}"
    if x >= 100:
        return f"{x:.1f}"
    if x >= 10:
        return f"{x:.2f}"
    return f"{x:.3f}"


def spread(mean: float, sd: float | None) -> str:
    """The mean and the standard deviation, with the same number of decimals."""
    text = rate(mean)
    if sd is None:
        return text
    decimals = len(text.partition(".")[2])
    return f"{text} ± {sd:,.{decimals}f}"


def milliseconds(x: float | None) -> str:
    """A number with three digits or more."""
    if x is None:
        return NONE
    if x >= 100:
        return f"{x:,.0f}"
    if x >= 10:
        return f"{x:.1f}"
    return f"{x:.2f}"


def seconds(x: float | None) -> str:
    return NONE if x is None else f"{x:.3f}"


def size(x: float) -> str:
    """A number of bytes."""
    if x >= 2**30:
        return gib(x)
    return f"{x / 2**20:,.1f} MiB"
