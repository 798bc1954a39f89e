"""Statistics of a run: accuracy with its standard error, and how much the choice of examples moves it.

An item without an answer counts nowhere but in `unscored`. What is called accuracy is the mean of what the metric
gives, so for f1 the mean F1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from minigen.evaluation.fewshot.result import FileResult, ItemResult, RunResult


@dataclass(frozen=True)
class RunSummary:
    """One choice of examples."""

    shots: int
    seed: int
    n: int  # items scored
    accuracy: float | None  # None: nothing is scored
    stderr: float | None  # None: fewer than two items are
    ties: int  # items where choices tie for the best
    unscored: int  # items without an answer


@dataclass(frozen=True)
class ShotsSummary:
    """One number of shots over its seeds. Seeds without a scored item count for nothing."""

    shots: int
    seeds: int
    n: int  # items scored, each once however many seeds there are
    accuracy: float | None  # mean over the seeds
    stderr: float | None  # of that mean, for other items of the kind and the same examples
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
    middle = sum(values) / len(values)
    return sqrt(sum((value - middle) ** 2 for value in values) / (len(values) - 1))


def standard_error(values: Sequence[float]) -> float | None:
    """Of the mean of values: their sample standard deviation / sqrt(n), as lm-evaluation-harness has it."""
    spread = deviation(values)
    return None if spread is None else spread / sqrt(len(values))


def chance(items: Sequence[ItemResult]) -> float | None:
    """What guessing among the choices gives on the scored items; None where one of them has no choices."""
    sizes = [len(item.choice_logprobs) for item in items if item.correct is not None]
    return mean([1 / size for size in sizes]) if all(sizes) else None


def summarise_run(run: RunResult) -> RunSummary:
    scored = [item.correct for item in run.items if item.correct is not None]
    return RunSummary(
        run.shots,
        run.seed,
        len(scored),
        mean(scored),
        standard_error(scored),
        sum(item.tied > 1 for item in run.items),
        len(run.items) - len(scored),
    )


def summarise(result: FileResult) -> tuple[ShotsSummary, ...]:
    """A summary for each number of shots, in the order of the runs.

    The standard error is over items, each taken as its mean over the seeds: the seeds answer the same items, so they
    are no further sample, and to pool them would make the error look smaller than it is.
    """
    numbers = dict.fromkeys(run.shots for run in result.runs)
    return tuple(
        _over_seeds([run for run in result.runs if run.shots == shots]) for shots in numbers
    )


def _over_seeds(runs: Sequence[RunResult]) -> ShotsSummary:
    each = [summarise_run(run) for run in runs]
    accuracies = [summary.accuracy for summary in each if summary.accuracy is not None]
    by_item: dict[int, list[float]] = {}
    for run in runs:
        for item in run.items:
            if item.correct is not None:
                by_item.setdefault(item.index, []).append(item.correct)
    return ShotsSummary(
        shots=runs[0].shots,
        seeds=len(runs),
        n=len(by_item),
        accuracy=mean(accuracies),
        stderr=standard_error([sum(values) / len(values) for values in by_item.values()]),
        lowest=min(accuracies, default=None),
        highest=max(accuracies, default=None),
        spread=deviation(accuracies),
        ties=sum(summary.ties for summary in each),
        unscored=each[0].unscored,
    )
