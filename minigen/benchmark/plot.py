"""A plot of results: tokens per second as bars, with the limit of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from minigen.benchmark.run import Result
from minigen.evaluation.picture import COLORS, GREY, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Name = tuple[str, str, str, str]  # model, backend, dtype, quant
WIDTH = 7.2  # inches
BAR, PANEL, ENDS = 0.28, 0.62, 1.0  # inches: a bar, the rest of a panel, the rest of the figure
LONGEST = 34  # characters of a bar's name
ROOM = 1.36  # the axis, relative to the longest bar: it has room for the numbers after the bars


def plot(results: Sequence[Result], path: Path, title: str) -> None:
    """Writes a PNG: a panel for each test, with its own scale and a bar for each model.

    The line through a bar is the standard deviation, the upright line is the limit. Raises
    MinigenError if matplotlib is missing or the file cannot be written.
    """
    panels: dict[str, list[Result]] = {}
    for result in results:
        panels.setdefault(result.test, []).append(result)
    same, names = names_of(results)
    title = "; ".join(part for part in (same, title) if part)
    heights = [PANEL + BAR * len(group) for group in panels.values()]
    with picture(path, WIDTH, ENDS + sum(heights)) as figure:
        grid = figure.subplots(len(panels), squeeze=False, gridspec_kw={"height_ratios": heights})
        for axes, (test, group) in zip(grid[:, 0], panels.items(), strict=True):
            draw(axes, test, group, names)
        grid[-1, 0].set_xlabel("tokens/s: median ± standard deviation")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        figure.suptitle(title if len(title) <= 75 else f"{title[:74]}…", fontsize=10)


def draw(axes: Axes, test: str, group: Sequence[Result], names: Mapping[Name, str]) -> None:
    """Draws the panel of a test."""
    y = np.arange(len(group))
    medians = [result.median_tps for result in group]
    deviations = [result.sd_tps or 0.0 for result in group]
    limits = [result.limit_tps for result in group]
    axes.barh(y, medians, height=0.62, color=COLORS[0], alpha=0.85)
    axes.errorbar(medians, y, xerr=deviations, fmt="none", ecolor="black", elinewidth=1, capsize=2)
    axes.vlines(
        limits,
        y - 0.4,
        y + 0.4,
        color=COLORS[1],
        linewidth=2,
        label="limit: memory or matrix products, as measured in the same run",
    )
    longest = max(*medians, *limits)
    for i, result in enumerate(group):
        end = max(medians[i] + deviations[i], limits[i])
        axes.annotate(
            f"{rounded(medians[i])}: {100 * result.share:.0f} % of {rounded(limits[i])}",
            (end, i),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=GREY,
        )
        longest = max(longest, end)
    axes.set_xlim(0, ROOM * longest)
    axes.set_yticks(y, [names[key_of(result)] for result in group], fontsize=8)
    axes.set_ylim(len(group) - 0.4, -0.6)  # the first at the top
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(visible=False, axis="y")
    axes.set_title(test, fontsize=10, loc="left")


def rounded(rate: float) -> str:
    """A rate with at least three digits."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:#.3g}"


def names_of(results: Sequence[Result]) -> tuple[str, dict[Name, str]]:
    """(what all results have in common, the name of each bar: what distinguishes it)."""
    keys = list(dict.fromkeys(key_of(result) for result in results))
    varying: list[int] = []
    common: list[str] = []
    for i, values in enumerate(zip(*keys, strict=True)):
        if len(set(values)) > 1:
            varying.append(i)
        elif values[0]:
            common.append(values[0])
    names: dict[Name, str] = {}
    for key in keys:
        name = ", ".join(key[i] for i in varying if key[i])
        if len(name) > LONGEST:
            name = f"…{name[1 - LONGEST :]}"
        names[key] = name
    return ", ".join(common), names


def key_of(result: Result) -> Name:
    return result.model, result.backend, result.dtype, result.quant
