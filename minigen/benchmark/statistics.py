"""What a few runs say: their middle, their spread, and whether two sets of them differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
MOST_FREEDOM = 1e5  # degrees of freedom from where Student's t is as good as normal


@dataclass(frozen=True)
class Summary:
    """`sd` is the sample's standard deviation, None for a single run."""

    median: float
    mean: float
    sd: float | None


def summarise(samples: Sequence[float]) -> Summary:
    sd = float(np.std(samples, ddof=1)) if len(samples) > 1 else None
    return Summary(float(np.median(samples)), float(np.mean(samples)), sd)


def percentile(samples: Sequence[float], percent: float) -> float:
    """Between two samples, the straight line."""
    return float(np.percentile(samples, percent))


@dataclass(frozen=True)
class Ratio:
    """How many times A's speed B has, and an interval that holds the true ratio with CONFIDENCE; None: too few runs."""

    ratio: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        """Of B: "faster", "slower", "no difference shown", or "too few runs"."""
        if self.low is None or self.high is None:
            return "too few runs"
        return "faster" if self.low > 1 else "slower" if self.high < 1 else "no difference shown"


def ratio(a: Sequence[float], b: Sequence[float]) -> Ratio:
    """B to A by their geometric means, with Welch's interval (Welch 1947) on the logarithms: variances may differ."""
    first, second = np.log(np.asarray(a, float)), np.log(np.asarray(b, float))
    difference = float(second.mean() - first.mean())
    if min(len(first), len(second)) < 2:
        return Ratio(math.exp(difference), None, None)
    errors = [float(x.var(ddof=1)) / len(x) for x in (first, second)]
    error = sum(errors)
    half = 0.0
    if error > 0:
        freedom = error**2 / sum(
            e**2 / (len(x) - 1) for e, x in zip(errors, (first, second), strict=True)
        )
        half = t_quantile(CONFIDENCE, freedom) * math.sqrt(error)
    return Ratio(math.exp(difference), math.exp(difference - half), math.exp(difference + half))


def t_quantile(confidence: float, freedom: float) -> float:
    """The t within which Student's distribution with so many degrees of freedom, 1 or more, lies so often.

    With t = sqrt(freedom) tan(u) its density is that of cos(u) ** (freedom - 1), which is summed by trapezoids.
    """
    freedom = min(freedom, MOST_FREEDOM)
    u = np.linspace(0, math.pi / 2, 200_001)
    density = np.cos(u) ** (freedom - 1)
    area = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(freedom) * math.tan(float(np.interp(confidence, area / area[-1], u)))
