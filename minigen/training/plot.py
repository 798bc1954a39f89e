"""loss.png: the training and validation losses of log.jsonl."""

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
    """Writes a PNG of the losses in the rows of a log.

    Raises UsageError if they have no loss, MinigenError if matplotlib is missing or the file cannot
    be written.
    """
    require_matplotlib()

    report_steps, report_losses = series(rows, "step", "loss")
    smoothed_steps, smoothed = series(rows, "step", "smoothed")
    valid_steps, valid_losses = series(rows, "evaluation", "loss")
    if not report_steps:
        raise UsageError(f"there is nothing to plot in {path.parent}: its log has no loss yet")
    with picture(path, 6.4, 4.2) as figure:
        axes = figure.add_subplot()
        axes.plot(
            report_steps,
            report_losses,
            color=GREY,
            alpha=0.35,
            linewidth=0.8,
            label="training, each report",
        )
        axes.plot(
            smoothed_steps, smoothed, color=COLORS[0], linewidth=1.5, label="training, smoothed"
        )
        if valid_steps:
            axes.plot(
                *series(rows, "evaluation", "train_loss"),
                color=COLORS[2],
                marker="s",
                markersize=4,
                linewidth=1,
                label="training text, without dropout",
            )
            axes.plot(
                valid_steps,
                valid_losses,
                color=COLORS[1],
                marker="o",
                markersize=4,
                linewidth=1.5,
                label="validation",
            )
            best = valid_losses.index(min(valid_losses))
            axes.annotate(
                f"{valid_losses[best]:.4f}",
                (valid_steps[best], valid_losses[best]),
                xytext=(0, 7),
                textcoords="offset points",
                ha="right" if valid_steps[best] > max(valid_steps) / 2 else "left",
                color=COLORS[1],
            )
        axes.set_ylim(*limits(valid_losses, smoothed or report_losses))
        axes.set_xlim(left=0)
        axes.set_xlabel("step")
        axes.set_ylabel("loss (nats per token)")
        axes.set_title(title if len(title) <= 60 else f"…{title[-59:]}")
        axes.legend()


def series(
    rows: Sequence[Mapping[str, Any]], kind: str, name: str
) -> tuple[list[float], list[float]]:
    """(steps, values) of a number in the rows of a kind, without rows that lack one of the two."""
    steps: list[float] = []
    values: list[float] = []
    for row in rows:
        if row.get("kind") != kind:
            continue
        step = NUMBER.take(row.get("step"))
        value = NUMBER.take(row.get(name))
        if step is not None and value is not None:
            steps.append(step)
            values.append(value)
    return steps, values


def limits(valid_losses: Sequence[float], train_losses: Sequence[float]) -> tuple[float, float]:
    """Limits of the y axis: all losses but the highest 2 %, which are those of the first steps."""
    losses = sorted([*valid_losses, *train_losses])
    low = losses[0]
    high = max(losses[int(0.98 * (len(losses) - 1))], *valid_losses, low)
    span = high - low or 1
    return low - 0.06 * span, high + 0.1 * span
