"""Drawing from a few of the best logits alone, where it is certain that all of them would give the same token.

A device finds the best ones faster than it brings a whole row to the host. What depends on the rest must not decide:
ties at the edge of what was brought, and sums that are too near to where a cut falls. Then the whole row is asked for.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigen.sampling.numeric import FloatArray
from minigen.sampling.settings import Sampling
from minigen.sampling.stages import LOGIT_STAGES, STAGES, Candidates, History

SPARE = 64  # beyond top_k, to see what ties with the last of them: in 16 bits a few do
MOST = 512  # for a cut by probability: where it leaves more, the whole row is asked for
NEAR = 1e-4  # of the mass: a hundred times the error of a sum in float32 by blocks
CUTS = [name for name, _ in STAGES if name not in (*LOGIT_STAGES, "temperature")]


def first_cut(sampling: Sampling) -> str | None:
    """The first cut that is on; None for none, and where a whole row must be seen before it."""
    if sampling.temperature == 0 or not sampling.active.isdisjoint(LOGIT_STAGES):
        return None
    return next((name for name in CUTS if name in sampling.active), None)


def candidates_needed(sampling: Sampling) -> int | None:
    """How many of the best logits are worth bringing to the host; None where only the whole row will do."""
    cut = first_cut(sampling)
    if cut == "top_k":
        return sampling.cuts.top_k + SPARE
    return MOST if cut in ("top_p", "min_p") else None


def after_first_cut(values: Any, ids: NDArray[Any], log_total: float, sampling: Sampling) -> Candidates | None:
    """What the stages leave, up to the first cut, of a whole row; None where its best logits do not tell.

    `values` and `ids` (K,) are the best logits and where they stand, in any order. `log_total` is the logarithm of the
    sum of exp((logit - best) / temperature) over the whole row, as float32 has it.
    """
    if not isfinite(log_total):
        return None
    order = np.argsort(ids)
    row = Candidates(ids[order].astype(np.int64), np.asarray(values, dtype=np.float64)[order])
    stages, none = dict(STAGES), History(np.empty(0, dtype=np.int64), 0)
    if "temperature" in sampling.active:
        row = stages["temperature"](row, none, sampling)
    lowest = row.logits.min()  # no other one of the row is above it
    cut = first_cut(sampling)
    assert cut is not None
    if cut == "top_p":
        kept = nucleus_of(row.logits, log_total, sampling)
        left = None if kept is None else row.take(kept)
    else:
        left = stages[cut](row, none, sampling)
    return left if left is not None and left.logits.min() > lowest else None


def nucleus_of(logits: FloatArray, log_total: float, sampling: Sampling) -> NDArray[np.int64] | None:
    """The increasing indices of those that top-p keeps; None where the sum is not known well enough to say."""
    order = np.argsort(-logits, kind="stable")
    # Without a temperature the logits have not been moved, and the sum is of differences to the best.
    cumulative = np.exp(logits[order] - logits.max() - log_total).cumsum()
    mass = sampling.cuts.top_p
    if cumulative[-1] < mass + NEAR or np.abs(cumulative - mass).min() < NEAR:
        return None
    return np.sort(order[: np.searchsorted(cumulative, mass) + 1])
