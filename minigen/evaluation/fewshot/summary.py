"""Statistics of a run: accuracy with its standard error, and how much it depends on the examples.

An item without an answer counts only in `unscored`. Accuracy is the mean of the metric, whichever
that is: the mean F1 for f1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from minigen.evaluation.fewshot.result import FileResult, ItemResult, RunResult


@dataclass(frozen=True)
class RunSummary:
    """The items after one selection of examples."""

    shots: int
    seed: int
    n: int  # items scored
    accuracy: float | None  # None: no item is scored
    stderr: float | None  # None: fewer than two items are scored
    ties: int  # items where choices tie for the best
    unscored: int  # items without an answer


@dataclass(frozen=True)
class ShotsSummary:
    """One number of shots, over all seeds. Seeds without a scored item are left out."""

    shots: int
    seeds: int
    n: int  # items scored, each counted once for all seeds
    accuracy: float | None  # mean over the seeds
    stderr: float | None  # of that mean, for other items of the kind with the same examples
    lowest: float | None  # accuracy of the worst seed
    highest: float | None
    spread: float | None  # standard deviation of the seeds' accuracies; None: fewer than two seeds
    ties: int  # over all seeds
    unscored: int


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def deviation(values: Sequence[float]) -> float | None:
    """The sample standard deviation, with n - 1; None for fewer than two values."""
    if len(values) < 2:
        return None
    average = sum(values) / len(values)
    squares = sum((value - average) ** 2 for value in values)
    return sqrt(squares / (len(values) - 1))


def standard_error(values: Sequence[float]) -> float | None:
    """Standard error of the mean: sample standard deviation / sqrt(n)."""
    spread = deviation(values)
    return None if spread is None else spread / sqrt(len(values))


def chance(items: Sequence[ItemResult]) -> float | None:
    """The accuracy of guessing on the scored items; None if one of them has no choices."""
    sizes = [len(item.choice_logprobs) for item in items if item.correct is not None]
    if not all(sizes):
        return None
    return mean([1 / size for size in sizes])


def summarize_run(run: RunResult) -> RunSummary:
    scored = [item.correct for item in run.items if item.correct is not None]
    return RunSummary(
        shots=run.shots,
        seed=run.seed,
        n=len(scored),
        accuracy=mean(scored),
        stderr=standard_error(scored),
        ties=sum(item.tied > 1 for item in run.items),
        unscored=len(run.items) - len(scored),
    )


def summarize(result: FileResult) -> tuple[ShotsSummary, ...]:
    """A summary for each number of shots, in the order of the runs.

    The standard error is over items, each with its mean over the seeds. The seeds answer the same
    items, so they are not a further sample: pooling them would understate the error.
    """
    runs_of: dict[int, list[RunResult]] = {}
    for run in result.runs:
        runs_of.setdefault(run.shots, []).append(run)
    return tuple(_over_seeds(runs) for runs in runs_of.values())


def _over_seeds(runs: Sequence[RunResult]) -> ShotsSummary:
    summaries = [summarize_run(run) for run in runs]
    accuracies = [summary.accuracy for summary in summaries if summary.accuracy is not None]
    by_item: dict[int, list[float]] = {}  # index of an item -> its score with each seed
    for run in runs:
        for item in run.items:
            if item.correct is not None:
                by_item.setdefault(item.index, []).append(item.correct)
    item_means = [sum(values) / len(values) for values in by_item.values()]
    return ShotsSummary(
        shots=runs[0].shots,
        seeds=len(runs),
        n=len(by_item),
        accuracy=mean(accuracies),
        stderr=standard_error(item_means),
        lowest=min(accuracies, default=None),
        highest=max(accuracies, default=None),
        spread=deviation(accuracies),
        ties=sum(summary.ties for summary in summaries),
        unscored=summaries[0].unscored,
    )
