"""Statistics of a few runs: median, spread, and whether two sets of runs differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
MOST_FREEDOM = 1e5  # degrees of freedom beyond which Student's t is practically normal


@dataclass(frozen=True)
class Summary:
    """`sd` is the sample's standard deviation, None for a single run."""

    median: float
    mean: float
    sd: float | None


def summarize(samples: Sequence[float]) -> Summary:
    sd = float(np.std(samples, ddof=1)) if len(samples) > 1 else None
    return Summary(float(np.median(samples)), float(np.mean(samples)), sd)


def percentile(samples: Sequence[float], percent: float) -> float:
    """A percentile, interpolated linearly between two samples."""
    return float(np.percentile(samples, percent))


@dataclass(frozen=True)
class Ratio:
    """The speed of B relative to A, and its confidence interval; None: too few runs."""

    ratio: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        """Whether B is faster: "faster", "slower", "no difference shown", or "too few runs"."""
        if self.low is None or self.high is None:
            return "too few runs"
        if self.low > 1:
            return "faster"
        if self.high < 1:
            return "slower"
        return "no difference shown"


def ratio(a: Sequence[float], b: Sequence[float]) -> Ratio:
    """The ratio of the geometric means of B and A.

    Its interval is Welch's (Welch 1947) for the logarithms, whose variances may differ.
    """
    log_a = np.log(np.asarray(a, float))
    log_b = np.log(np.asarray(b, float))
    difference = float(log_b.mean() - log_a.mean())
    if min(len(a), len(b)) < 2:
        return Ratio(math.exp(difference), None, None)
    error_a = float(log_a.var(ddof=1)) / len(a)  # squared standard errors
    error_b = float(log_b.var(ddof=1)) / len(b)
    error = error_a + error_b
    half = 0.0
    if error > 0:
        freedom = error**2 / (error_a**2 / (len(a) - 1) + error_b**2 / (len(b) - 1))
        half = t_quantile(CONFIDENCE, freedom) * math.sqrt(error)
    return Ratio(math.exp(difference), math.exp(difference - half), math.exp(difference + half))


def t_quantile(confidence: float, freedom: float) -> float:
    """The t with |T| <= t of probability `confidence`, for Student's T with `freedom` >= 1 degrees.

    With t = sqrt(freedom) tan(u) the density is proportional to cos(u) ** (freedom - 1), which is
    integrated by trapezoids.
    """
    freedom = min(freedom, MOST_FREEDOM)
    u = np.linspace(0, math.pi / 2, 200_001)
    density = np.cos(u) ** (freedom - 1)
    area = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(freedom) * math.tan(float(np.interp(confidence, area / area[-1], u)))
