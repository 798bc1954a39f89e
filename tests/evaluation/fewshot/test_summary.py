"""Statistics of a run, worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from pathlib import Path

import pytest

from minigen.evaluation.fewshot.result import FileResult, ItemResult, RunResult
from minigen.evaluation.fewshot.summary import (
    chance,
    deviation,
    standard_error,
    summarize,
    summarize_run,
)


def run(
    correct: Sequence[float | None], shots: int = 0, seed: int = 0, choices: int = 2, tied: int = 1
) -> RunResult:
    items = [
        ItemResult(
            i, "q", "x", None if c is None else "x", c, choice_logprobs=(-1.0,) * choices, tied=tied
        )
        for i, c in enumerate(correct)
    ]
    return RunResult(shots, seed, tuple(items))


def of(*runs: RunResult) -> FileResult:
    return FileResult(Path("t.prompt.toml"), "m", runs, 10, 90, 1.0)


def test_deviation_and_standard_error() -> None:
    assert (deviation([]), deviation([1.0]), standard_error([1.0])) == (None, None, None)
    assert deviation([1.0, 3.0]) == pytest.approx(sqrt(2))
    assert standard_error([1.0, 3.0]) == pytest.approx(1)


def test_one_run() -> None:
    summary = summarize_run(run([1.0, 0.0, None, 1.0, 0.0], tied=2))
    assert (summary.n, summary.accuracy, summary.ties, summary.unscored) == (4, 0.5, 5, 1)
    # For right and wrong alone, this is sqrt(p (1 - p) / (n - 1)).
    assert summary.stderr == pytest.approx(sqrt(0.25 / 3))
    assert summarize_run(run([None])).accuracy is None
    assert summarize_run(run([1.0])).stderr is None


def test_over_seeds() -> None:
    zero, few = summarize(
        of(run([1.0, 0.0]), run([1.0, 1.0, 0.0, 1.0], 4, 0), run([1.0, 0.0, 0.0, 0.0], 4, 1))
    )
    assert (zero.shots, zero.seeds, zero.n, zero.accuracy, zero.spread) == (0, 1, 2, 0.5, None)
    assert (few.shots, few.seeds, few.n) == (4, 2, 4)
    assert (few.accuracy, few.lowest, few.highest) == (0.5, 0.25, 0.75)
    assert few.spread == pytest.approx(sqrt(0.125))
    # The items' means are 1, 0.5, 0, 0.5: their deviation is sqrt(0.5 / 3).
    assert few.stderr == pytest.approx(sqrt(0.5 / 3) / 2)


def test_the_same_answers_for_every_seed_are_no_more_evidence() -> None:
    once = summarize(of(run([1.0, 0.0, 1.0], 2, 0)))[0]
    thrice = summarize(of(*(run([1.0, 0.0, 1.0], 2, seed) for seed in range(3))))[0]
    assert (thrice.stderr, thrice.spread) == (pytest.approx(once.stderr), 0)


def test_chance() -> None:
    assert chance(run([1.0, 0.0], choices=4).items) == 0.25
    assert chance([*run([1.0], choices=4).items, *run([1.0], choices=2).items]) == 0.375
    assert chance([*run([1.0]).items, *run([1.0], choices=0).items]) is None
    assert chance(run([None]).items) is None
