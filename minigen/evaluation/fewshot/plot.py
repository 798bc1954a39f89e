"""A plot of accuracy against shots."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from minigen.errors import UsageError
from minigen.evaluation.fewshot.result import FileResult
from minigen.evaluation.fewshot.summary import ShotsSummary, chance, summarize
from minigen.evaluation.picture import COLORS, GREY, picture, require_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "osD^vPX*"  # with the colors they make 56 different lines
BAND = 0.15  # opacity


class Line(NamedTuple):
    """One file as it is drawn: its name, its result, and a point for each number of shots."""

    name: str
    result: FileResult
    points: list[ShotsSummary]


def plot(
    results: Sequence[FileResult], path: Path, names: Sequence[str], metric: str = "accuracy"
) -> None:
    """Writes a PNG with a line for each file: error bars of one standard error, a band over seeds.

    `names` are the labels of the lines; a dashed line is the accuracy of guessing. The same results
    give the same bytes with the same version of matplotlib.

    Raises UsageError: nothing is scored.
    Raises MinigenError: matplotlib is missing, or the file cannot be written.
    """
    require_matplotlib()
    from matplotlib.patches import Patch

    lines: list[Line] = []
    for result, name in zip(results, names, strict=True):
        points = [summary for summary in summarize(result) if summary.accuracy is not None]
        if points:
            lines.append(Line(name, result, points))
    if not lines:
        raise UsageError("there is nothing to plot: no item has an answer")
    with picture(path, 6.4, 4.2 + 0.22 * (len(lines) - 1)) as figure:
        axes = figure.add_subplot()
        legend: list[tuple[str, Any]] = []  # (text, handle)
        all_points: list[ShotsSummary] = []
        for number, line in enumerate(lines):
            all_points += line.points
            handle = _draw_line(axes, line.points, number, len(lines))
            if len(lines) > 1:  # a single name is in the title
                legend.append((_label(line.name), handle))
        if any(point.seeds > 1 for point in all_points):
            color = COLORS[0] if len(lines) == 1 else GREY
            legend.append(("worst to best seed", Patch(color=color, alpha=BAND, linewidth=0)))
        chance_line = _draw_chance(axes, [_chance(line.result) for line in lines])
        if chance_line is not None:
            legend.append(("chance", chance_line))
        _set_axes(axes, sorted({point.shots for point in all_points}))
        axes.set_ylabel(f"{metric} (± standard error)")
        models = dict.fromkeys(Path(line.result.model).name for line in lines)
        title = [_label(model) for model in models]
        if len(lines) == 1:
            title.insert(0, _label(lines[0].name))
        axes.set_title("\n".join(title))
        if legend:
            widest = max(len(text) for text, _ in legend)
            columns = max(1, min(3, len(legend), 80 // (widest + 6)))
            texts, handles = zip(*legend, strict=True)
            figure.legend(handles, texts, loc="outside lower center", ncols=columns)


def x_of(shots: int) -> float:
    """The x coordinate of a number of shots: equal steps for each doubling, and room for 0."""
    return log2(1 + shots)


def _draw_line(axes: Axes, points: Sequence[ShotsSummary], number: int, lines: int) -> Any:
    """Draws line `number` of `lines`: means, error bars, a band from worst to best seed.

    Returns the legend's handle.
    """
    color = COLORS[number % len(COLORS)]
    marker = MARKERS[number % len(MARKERS)]
    shift = (number - (lines - 1) / 2) * min(0.06, 0.3 / lines)  # so that error bars do not overlap
    x = [x_of(point.shots) + shift for point in points]
    y = [point.accuracy or 0.0 for point in points]
    errors = [point.stderr or 0.0 for point in points]
    if any(point.seeds > 1 for point in points):
        low = [point.lowest or 0.0 for point in points]
        high = [point.highest or 0.0 for point in points]
        if len(points) > 1:
            axes.fill_between(x, low, high, color=color, alpha=BAND, linewidth=0)
        else:  # a band without width would be invisible
            axes.vlines(x, low, high, color=color, alpha=BAND, linewidth=12)
    return axes.errorbar(
        x, y, errors, color=color, marker=marker, markersize=5, capsize=3, linewidth=1.5
    )


def _chance(result: FileResult) -> float | None:
    """The accuracy of guessing on the items of all runs."""
    return chance([item for run in result.runs for item in run.items])


def _draw_chance(axes: Axes, levels: Sequence[float | None]) -> Any:
    """Draws a dashed line at each level, in the color of its line, or grey where lines share it.

    Returns the first of them, or None.
    """
    first = None
    for level in dict.fromkeys(levels):
        if level is None:
            continue
        color = GREY
        if len(levels) > 1 and levels.count(level) == 1:
            color = COLORS[levels.index(level) % len(COLORS)]
        drawn = axes.axhline(level, color=color, linestyle="--", linewidth=1)
        if first is None:
            first = drawn
    return first


def _set_axes(axes: Axes, shots: Sequence[int]) -> None:
    """Ticks where there are points, unless they would overlap; y limits within 0 to 1."""
    first, last = x_of(shots[0]), x_of(shots[-1])
    span = last - first
    ticks: list[int] = []
    for number in shots:
        if not ticks or x_of(number) - x_of(ticks[-1]) > 0.045 * span:
            ticks.append(number)
    axes.set_xticks([x_of(number) for number in ticks], [str(number) for number in ticks])
    margin = max(0.06 * span, 0.2)
    axes.set_xlim(first - margin, last + margin)
    axes.set_xlabel("shots (examples in the prompt)")
    low, high = axes.get_ylim()
    middle = (low + high) / 2
    half = max(high - middle, 0.05)  # a flat line must not be magnified to its seventh digit
    axes.set_ylim(max(middle - half, -0.02), min(middle + half, 1.02))


def _label(name: str) -> str:
    """A name as it is drawn: shortened, and no leading underscore, which hides it in a legend."""
    if len(name) > 60:
        name = f"…{name[-59:]}"
    return f" {name}" if name.startswith("_") else name
