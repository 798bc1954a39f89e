"""Statistics against tables and textbook numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minigen.benchmark.statistics import Summary, percentile, ratio, summarize, t_quantile


def test_summaries() -> None:
    assert summarize([2, 4, 4, 4, 5, 5, 7, 9]) == Summary(
        4.5, 5.0, pytest.approx(math.sqrt(32 / 7))
    )
    assert summarize([3.0]) == Summary(3.0, 3.0, None)
    assert percentile([1, 2, 3, 4, 5], 50) == 3
    assert percentile([1, 2, 3, 4, 5], 95) == pytest.approx(4.8)


# Two-sided, from printed tables.
@pytest.mark.parametrize(
    ("confidence", "freedom", "t"),
    [(0.95, 1, 12.7062), (0.95, 2, 4.3027), (0.95, 4, 2.7764), (0.95, 10, 2.2281), (0.95, 1e12, 1.95996),
     (0.99, 4, 4.6041), (0.90, 30, 1.6973)],
)  # fmt: skip
def test_students_t(confidence: float, freedom: float, t: float) -> None:
    assert t_quantile(confidence, freedom) == pytest.approx(t, rel=5e-5)


def test_welch_by_hand() -> None:
    a, b = [math.e, math.e**2, math.e**3], [math.e**4, math.e**6]
    # Logarithms: means 2 and 5, variances 1 and 2, so squared errors 1/3 and 1.
    freedom = (1 / 3 + 1) ** 2 / ((1 / 3) ** 2 / 2 + 1)
    half = t_quantile(0.95, freedom) * math.sqrt(4 / 3)
    found = ratio(a, b)
    assert found.ratio == pytest.approx(math.exp(3))
    assert (found.low, found.high) == (
        pytest.approx(math.exp(3 - half)),
        pytest.approx(math.exp(3 + half)),
    )
    assert found.verdict == "no difference shown"


def test_verdicts() -> None:
    rng = np.random.default_rng(0)
    slow, fast = 100 + rng.standard_normal(5), 110 + rng.standard_normal(5)
    assert ratio(slow, fast).verdict == "faster"
    assert ratio(fast, slow).verdict == "slower"
    assert ratio(slow, slow[::-1]).verdict == "no difference shown"
    assert ratio([1.0], [5.0, 5.1]).verdict == "too few runs"
    assert ratio([5.0, 5.0], [5.0, 5.0]).verdict == "no difference shown"


def test_the_interval_holds_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    draws = np.exp(rng.normal(0, [[[0.02]], [[0.06]]], (2, 400, 5)))  # equal speeds, unequal noise
    wrong = sum(ratio(a, b).verdict != "no difference shown" for a, b in zip(*draws, strict=True))
    assert 8 <= wrong <= 32  # 5 % of 400
