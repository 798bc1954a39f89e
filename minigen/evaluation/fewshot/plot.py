"""Accuracy against shots as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigen.errors import UsageError
from minigen.evaluation.fewshot.result import FileResult
from minigen.evaluation.fewshot.summary import ShotsSummary, chance, summarise
from minigen.evaluation.picture import COLORS, GREY, picture, require_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "osD^vPX*"  # with the colors, 56 lines before one comes again
BAND = 0.15  # opacity


def plot(
    results: Sequence[FileResult], path: Path, names: Sequence[str], metric: str = "accuracy"
) -> None:
    """Writes a PNG: a line a file, with error bars of one standard error and the range over seeds as a band.

    `names` label the lines; a dashed line is what guessing gives. The same results give the same bytes with the same
    matplotlib. Raises UsageError where nothing is scored, MinigenError without matplotlib or where the file cannot
    be written.
    """
    require_matplotlib()
    from matplotlib.patches import Patch

    lines = [
        [summary for summary in summarise(result) if summary.accuracy is not None]
        for result in results
    ]
    drawn = [
        (result, name, line)
        for result, name, line in zip(results, names, lines, strict=True)
        if line
    ]
    if not drawn:
        raise UsageError("there is nothing to plot: no item has an answer")
    with picture(path, 6.4, 4.2 + 0.22 * (len(drawn) - 1)) as figure:
        axes = figure.add_subplot()
        legend = [
            (_legible(name), _draw(axes, line, number, len(drawn)))
            for number, (_, name, line) in enumerate(drawn)
        ]
        if len(drawn) == 1:
            del legend[0]  # it is in the title
        if any(summary.seeds > 1 for _, _, line in drawn for summary in line):
            colour = COLORS[0] if len(drawn) == 1 else GREY
            legend.append(("worst to best seed", Patch(color=colour, alpha=BAND, linewidth=0)))
        levels = [
            chance([item for run in result.runs for item in run.items]) for result, _, _ in drawn
        ]
        legend += [("chance", line) for line in _draw_chance(axes, levels)][:1]
        _label(axes, sorted({summary.shots for _, _, line in drawn for summary in line}))
        axes.set_ylabel(f"{metric} (± standard error)")
        models = dict.fromkeys(Path(result.model).name for result, _, _ in drawn)
        axes.set_title(
            "\n".join([_legible(drawn[0][1])] * (len(drawn) == 1) + [_legible(m) for m in models])
        )
        if legend:
            columns = max(1, min(3, len(legend), 80 // (max(len(text) for text, _ in legend) + 6)))
            texts, handles = zip(*legend, strict=True)
            figure.legend(handles, texts, loc="outside lower center", ncols=columns)


def place(shots: int) -> float:
    """Where a number of shots stands on the axis: each doubling takes the same room, and 0 has a place."""
    return log2(1 + shots)


def _draw(axes: Axes, line: Sequence[ShotsSummary], number: int, total: int) -> Any:
    """One file: its mean with error bars, and a band from the worst to the best seed. Returns the legend's handle."""
    colour, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
    aside = (number - (total - 1) / 2) * min(
        0.06, 0.3 / total
    )  # or error bars would hide each other
    x = [place(summary.shots) + aside for summary in line]
    errors = [summary.stderr or 0.0 for summary in line]
    y = [summary.accuracy or 0.0 for summary in line]
    if any(summary.seeds > 1 for summary in line):
        low = [summary.lowest or 0.0 for summary in line]
        high = [summary.highest or 0.0 for summary in line]
        if len(line) > 1:
            axes.fill_between(x, low, high, color=colour, alpha=BAND, linewidth=0)
        else:  # a band of no width would not be seen
            axes.vlines(x, low, high, color=colour, alpha=BAND, linewidth=12)
    return axes.errorbar(
        x, y, errors, color=colour, marker=marker, markersize=5, capsize=3, linewidth=1.5
    )


def _draw_chance(axes: Axes, levels: Sequence[float | None]) -> list[Any]:
    """A dashed line a level: in the file's colour, or grey where files share it. Returns the lines."""
    lines = []
    for level in dict.fromkeys(level for level in levels if level is not None):
        shared = levels.count(level) > 1 or len(levels) == 1
        colour = GREY if shared else COLORS[levels.index(level) % len(COLORS)]
        lines.append(axes.axhline(level, color=colour, linestyle="--", linewidth=1))
    return lines


def _label(axes: Axes, shots: Sequence[int]) -> None:
    """Ticks where there are points, less those that would run into the one before; limits within 0 to 1."""
    span = place(shots[-1]) - place(shots[0])
    shown: list[int] = []
    for number in shots:
        if not shown or place(number) - place(shown[-1]) > 0.045 * span:
            shown.append(number)
    axes.set_xticks([place(number) for number in shown], [str(number) for number in shown])
    axes.set_xlim(place(shots[0]) - max(0.06 * span, 0.2), place(shots[-1]) + max(0.06 * span, 0.2))
    axes.set_xlabel("shots (examples in the prompt)")
    low, high = axes.get_ylim()
    middle = (low + high) / 2
    half = max(high - middle, 0.05)  # a flat line is no reason to show the seventh digit
    axes.set_ylim(max(middle - half, -0.02), min(middle + half, 1.02))


def _legible(name: str) -> str:
    """A name as it is drawn: not too long, and never with an underscore first, which keeps it out of a legend."""
    short = name if len(name) <= 60 else f"…{name[-59:]}"
    return f" {short}" if short.startswith("_") else short
