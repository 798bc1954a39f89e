"""Drawing from a few of the best logits, if it is certain that the whole row gives the same token.

A device finds the best logits faster than it brings a whole row to the host. Where the rest of
the row could matter, the whole row is used: if logits tie at the edge of what was brought, or a
sum is too close to where a cut falls.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigen.sampling.numeric import FloatArray
from minigen.sampling.settings import Sampling
from minigen.sampling.stages import LOGIT_STAGES, STAGES, Candidates, History

SPARE = 64  # beyond top_k, to see what ties with the last: in 16-bit dtypes, a few do
MOST = 512  # for cuts by probability; if more remain, the whole row is used
NEAR = 1e-4  # of the mass: a hundred times the error of a blockwise sum in float32
CUTS = [name for name, _ in STAGES if name not in (*LOGIT_STAGES, "temperature")]


def first_cut(sampling: Sampling) -> str | None:
    """The first cut in use; None if there is none, or if a stage before it needs the whole row."""
    if sampling.temperature == 0 or not sampling.active.isdisjoint(LOGIT_STAGES):
        return None
    for name in CUTS:
        if name in sampling.active:
            return name
    return None


def candidates_needed(sampling: Sampling) -> int | None:
    """How many of the best logits to bring to the host; None: only the whole row will do."""
    cut = first_cut(sampling)
    if cut == "top_k":
        return sampling.cuts.top_k + SPARE
    if cut in ("top_p", "min_p"):
        return MOST
    return None


def after_first_cut(
    values: Any, ids: NDArray[Any], log_total: float, sampling: Sampling
) -> Candidates | None:
    """The candidates of a whole row after the first cut; None if its best logits do not suffice.

    Args:
        values: (K,), the best logits, in any order.
        ids: (K,), their ids.
        log_total: The logarithm of the sum of exp((logit - best) / temperature) over the whole row,
            in float32.
        sampling: The settings.
    """
    if not isfinite(log_total):
        return None
    order = np.argsort(ids)
    row = Candidates(ids[order].astype(np.int64), np.asarray(values, dtype=np.float64)[order])
    stages, no_history = dict(STAGES), History(np.empty(0, dtype=np.int64), 0)
    if "temperature" in sampling.active:
        row = stages["temperature"](row, no_history, sampling)
    lowest = row.logits.min()  # no logit outside these is above it
    cut = first_cut(sampling)
    assert cut is not None
    if cut == "top_p":
        nucleus = nucleus_of(row.logits, log_total, sampling)
        if nucleus is None:
            return None
        remaining = row.take(nucleus)
    else:
        remaining = stages[cut](row, no_history, sampling)
    if remaining.logits.min() <= lowest:  # others outside these could remain too
        return None
    return remaining


def nucleus_of(
    logits: FloatArray, log_total: float, sampling: Sampling
) -> NDArray[np.int64] | None:
    """The increasing indices of what top-p keeps; None if the sum is not exact enough to say."""
    order = np.argsort(-logits, kind="stable")
    # Without a temperature the logits were not shifted, and the sum is over differences to the
    # best.
    cumulative = np.exp(logits[order] - logits.max() - log_total).cumsum()
    mass = sampling.cuts.top_p
    if cumulative[-1] < mass + NEAR or np.abs(cumulative - mass).min() < NEAR:
        return None
    return np.sort(order[: np.searchsorted(cumulative, mass) + 1])
