"""The table of `prompt`: one row for each number of shots of each file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..display.tables import WIDE, natural_width, render, sizes_of
from .report import NONE, Report

if TYPE_CHECKING:
    from minigen.evaluation.fewshot.summary import ShotsSummary

NAMES = ("file", "metric")  # aligned to the left, and first to leave a narrow table
Row = dict[str, str]  # heading -> cell


def table(reports: Sequence[Report], width: int = WIDE, terminal: bool = False) -> str:
    """The table of all files. No number is ever cut; a narrow terminal gets fewer columns."""
    score = reports[0].metric
    if any(report.metric != score for report in reports):
        score = "score"
    groups = [_rows_of(report, score) for report in reports]
    head = _used_columns(groups, score)
    rows = [row for group in groups for row in group]
    if head[0] != "file" or natural_width(head, _cells(rows, head)) <= width:
        return _fitted(head, rows, rows, width, terminal)
    # Too narrow for the names: they stand above the rows of their file.
    metric_shown = "metric" in head
    head = _narrowed([name for name in head if name not in NAMES], rows, width)
    tables = []
    for report, group in zip(reports, groups, strict=True):
        name = f"{report.name} ({report.metric})" if metric_shown else report.name
        tables.append(f"{name}\n{_fitted(head, group, rows, width, terminal)}")
    return "\n".join(tables)


def _rows_of(report: Report, score: str) -> list[Row]:
    """A file's rows with all columns; `score` is the heading of the accuracy."""
    from minigen.evaluation.fewshot.summary import chance, summarize

    level = chance([item for run in report.result.runs for item in run.items])
    rows: list[Row] = []
    for summary in summarize(report.result):
        row = {
            "file": "" if rows else report.name,
            "shots": str(summary.shots),
            "metric": report.metric,
            "items": str(summary.n),
            score: _score(summary),
            "chance": _fixed(level),
            "worst - best": "",
            "seeds": "",
            "ties": str(summary.ties),
            "unscored": str(summary.unscored),
        }
        if summary.seeds > 1 and summary.lowest is not None:
            row["worst - best"] = f"{_fixed(summary.lowest)} - {_fixed(summary.highest)}"
            row["seeds"] = str(summary.seeds)
        rows.append(row)
    return rows


def _used_columns(groups: Sequence[Sequence[Row]], score: str) -> list[str]:
    """The columns that say something here, in their order."""
    rows = [row for group in groups for row in group]
    metrics = {row["metric"] for row in rows}
    unused = set()
    if len(groups) == 1:
        unused.add("file")
    if len(metrics) == 1:
        unused.add("metric")
    for name, empty in (("chance", NONE), ("seeds", ""), ("ties", "0"), ("unscored", "0")):
        if all(row[name] == empty for row in rows):
            unused.add(name)
    if "seeds" in unused:
        unused.add("worst - best")
    return [name for name in rows[0] if name not in unused]


def _narrowed(head: list[str], rows: Sequence[Row], width: int) -> list[str]:
    """The columns without seeds, and then without chance, if they do not fit otherwise."""
    for spare in ("seeds", "chance"):
        if natural_width(head, _cells(rows, head), 1) <= width:
            break
        head = [name for name in head if name != spare]
    return head


def _fitted(
    head: Sequence[str],
    rows: Sequence[Row],
    all_rows: Sequence[Row],
    width: int,
    terminal: bool,
) -> str:
    """Rows in columns as wide as `all_rows` need; closer together if the terminal is narrow."""
    all_cells = _cells(all_rows, head)
    gap = 2
    if natural_width(head, all_cells) > width:
        gap = 1
    wide = max(width, natural_width(head, all_cells, gap))
    sizes = sizes_of(head, all_cells)
    return render(head, _cells(rows, head), wide, terminal, NAMES, gap, sizes)


def _cells(rows: Sequence[Row], names: Sequence[str]) -> list[list[str]]:
    cells = []
    for row in rows:
        cells.append([row[name] for name in names])
    return cells


def _score(summary: ShotsSummary) -> str:
    if summary.stderr is None:
        return _fixed(summary.accuracy)
    return f"{_fixed(summary.accuracy)} ± {summary.stderr:.3f}"


def _fixed(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"
