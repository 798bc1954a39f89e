"""loss.png: the training loss and what validations said, drawn from log.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minigen.errors import UsageError
from minigen.evaluation.picture import COLORS, GREY, picture, require_matplotlib
from minigen.reading.settings import Range

NAME = "loss.png"
NUMBER = Range()


def plot(rows: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Writes a PNG of the rows of a log. Raises UsageError where they hold no loss, MinigenError without matplotlib or
    where the file cannot be written.
    """
    require_matplotlib()

    def of(kind: str, name: str) -> tuple[list[float], list[float]]:
        own = [row for row in rows if row.get("kind") == kind]
        points = [(NUMBER.take(row.get("step")), NUMBER.take(row.get(name))) for row in own]
        known = [(x, y) for x, y in points if x is not None and y is not None]
        return [x for x, _ in known], [y for _, y in known]

    if not of("step", "loss")[0]:
        raise UsageError(f"there is nothing to plot in {path.parent}: its log has no loss yet")
    with picture(path, 6.4, 4.2) as figure:
        axes = figure.add_subplot()
        axes.plot(
            *of("step", "loss"),
            color=GREY,
            alpha=0.35,
            linewidth=0.8,
            label="training, each report",
        )
        axes.plot(
            *of("step", "smoothed"), color=COLORS[0], linewidth=1.5, label="training, smoothed"
        )
        steps, losses = of("evaluation", "loss")
        if steps:
            axes.plot(*of("evaluation", "train_loss"), color=COLORS[2], marker="s", markersize=4, linewidth=1,
                      label="training text, without dropout")  # fmt: skip
            axes.plot(
                steps,
                losses,
                color=COLORS[1],
                marker="o",
                markersize=4,
                linewidth=1.5,
                label="validation",
            )
            best = min(range(len(losses)), key=losses.__getitem__)
            axes.annotate(
                f"{losses[best]:.4f}", (steps[best], losses[best]), xytext=(0, 7), textcoords="offset points",
                ha="right" if steps[best] > max(steps) / 2 else "left", color=COLORS[1],
            )  # fmt: skip
        seen = sorted([*losses, *of("step", "smoothed")[1]] or of("step", "loss")[1])
        low, high = seen[0], max(seen[int(0.98 * (len(seen) - 1))], *(losses or [seen[0]]))
        axes.set_ylim(
            low - 0.06 * (high - low or 1), high + 0.1 * (high - low or 1)
        )  # the first steps may lie above
        axes.set_xlim(left=0)
        axes.set_xlabel("step")
        axes.set_ylabel("loss (nats a token)")
        axes.set_title(title if len(title) <= 60 else f"…{title[-59:]}")
        axes.legend()
