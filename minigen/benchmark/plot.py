"""A picture of a run: each test's tokens a second as bars, with the limit that each could reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minigen.benchmark.run import Result
from minigen.evaluation.picture import COLORS, GREY, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Name = tuple[str, str, str, str]  # model, backend, dtype, quant
WIDTH = 7.2  # inches
BAR, PANEL, ENDS = (
    0.28,
    0.62,
    1.0,
)  # inches: a bar, what a panel has beside its bars, what the figure has beside panels
LONGEST = 34  # characters of a bar's name
ROOM = (
    1.36  # of the longest bar: the axis ends there, so that the figures beside the bars are within
)


def plot(results: Sequence[Result], path: Path, title: str) -> None:
    """Writes a PNG: a panel a test, with its own scale, and in it a bar a model.

    A bar's line through it is the standard deviation, the upright beside it the limit. Raises MinigenError without
    matplotlib or where the file cannot be written.
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
    places = range(len(group))
    medians, limits = [r.median_tps for r in group], [r.limit_tps for r in group]
    axes.barh(places, medians, height=0.62, color=COLORS[0], alpha=0.85)
    axes.errorbar(
        medians,
        places,
        xerr=[r.sd_tps or 0.0 for r in group],
        fmt="none",
        ecolor="black",
        elinewidth=1,
        capsize=2,
    )
    axes.vlines(
        limits, [i - 0.4 for i in places], [i + 0.4 for i in places], color=COLORS[1], linewidth=2,
        label="limit: memory or matrix products, as measured in the same run",
    )  # fmt: skip
    longest = max(*medians, *limits)
    for i, r in enumerate(group):
        end = max(r.median_tps + (r.sd_tps or 0.0), r.limit_tps)
        axes.annotate(
            f"{figure(r.median_tps)}: {100 * r.share:.0f} % of {figure(r.limit_tps)}",
            (end, i), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8, color=GREY,
        )  # fmt: skip
        longest = max(longest, end)
    axes.set_xlim(0, ROOM * longest)
    axes.set_yticks(
        places, [names[r.model, r.backend, r.dtype, r.quant] for r in group], fontsize=8
    )
    axes.set_ylim(len(group) - 0.4, -0.6)  # the first at the top
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(visible=False, axis="y")
    axes.set_title(test, fontsize=10, loc="left")


def figure(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:#.3g}"


def names_of(results: Sequence[Result]) -> tuple[str, dict[Name, str]]:
    """What of model, backend, dtype and quant is the same for all, and by what else a bar is told from the others."""
    keys = list(dict.fromkeys((r.model, r.backend, r.dtype, r.quant) for r in results))
    varying = [i for i in range(4) if len({key[i] for key in keys}) > 1]
    found = {key: ", ".join(key[i] for i in varying if key[i]) for key in keys}
    same = ", ".join(keys[0][i] for i in range(4) if i not in varying and keys[0][i])
    return same, {
        key: name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"
        for key, name in found.items()
    }
