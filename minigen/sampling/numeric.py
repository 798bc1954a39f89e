"""The arithmetic below the sampling stages: softmax, entropy, and finding the few best of very many values.

New arrays of a vocabulary's size cost more than the arithmetic on them, so that some steps are done in place.
The functions that pick look for the few best before they sort, which changes no result and saves sorting a
whole vocabulary.
"""

from functools import lru_cache
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigen.errors import MinigenError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@lru_cache(maxsize=4)
def all_ids(size: int) -> IntArray:
    """Return the ids 0 .. size - 1: (size,), read-only, since it is kept and shared."""
    ids = np.arange(size)
    ids.flags.writeable = False
    return ids


def check_row(logits: FloatArray) -> FloatArray:
    """Return `logits` (V,) unchanged. Raises MinigenError where no distribution can be made of them."""
    assert logits.ndim == 1
    assert logits.size
    highest = logits.max()  # NaN where there is one
    if np.isfinite(highest):
        return logits
    if highest == -np.inf:
        raise MinigenError("the model produced -inf as the logit of every token: check its weights and its dtype")
    kind = "NaN" if np.isnan(highest) else "+inf"
    raise MinigenError(f"the model produced {kind} as a logit: check its weights, or run it in float32")


def softmax(logits: FloatArray) -> FloatArray:
    """Return the probabilities (N,) of `logits` (N,), of which the largest must be finite."""
    weights: FloatArray = logits - logits.max()
    np.exp(weights, out=weights)
    weights /= weights.sum()
    return weights


def log_softmax(logits: Any) -> FloatArray:
    """Return the log-probabilities (V,) float64 of a row of logits (V,) of any dtype; -inf stays -inf.

    MinigenError where no distribution can be made of them: a NaN, +inf, or nothing above -inf.
    """
    row = check_row(np.asarray(logits, dtype=np.float64))
    shifted: FloatArray = row - row.max()
    shifted -= log(np.exp(shifted).sum())
    return shifted


def information(logits: FloatArray) -> tuple[FloatArray, FloatArray, float]:
    """Return the probabilities (N,), the log-probabilities (N,) and the entropy in nats of `logits` (N,)."""
    logprobs = log_softmax(logits)
    probs: FloatArray = np.exp(logprobs)
    terms = np.maximum(logprobs, -1e300)  # 0 * -inf would be NaN
    terms *= probs
    return probs, logprobs, -float(terms.sum())


def at_least_kth(values: FloatArray, k: int) -> IntArray:
    """Return the increasing indices of all values >= the k-th largest of `values` (N,), 1 <= k <= N.

    A column's maximum is one of the values, so k columns with a maximum >= t are k values >= t: the k-th
    largest maximum is never above the k-th largest value, and one cheap pass leaves little to partition.
    """
    columns = 4 * k
    rows = values.size // columns
    near = all_ids(values.size)
    if rows > 1:
        maxima = values[: rows * columns].reshape(rows, columns).max(axis=0)
        near = np.flatnonzero(values >= np.partition(maxima, columns - k)[columns - k])
    among = values[near]
    kept: IntArray = near[among >= np.partition(among, among.size - k)[among.size - k]]
    return kept


def best(values: FloatArray, k: int) -> IntArray:
    """Return the indices of the k largest `values` (N,), best first, among equals the lower index first."""
    if k <= 0:
        return np.empty(0, dtype=np.int64)
    near = at_least_kth(values, k) if k < values.size else all_ids(values.size)
    return near[np.argsort(-values[near], kind="stable")][:k]


def nucleus(values: FloatArray, probs: FloatArray, mass: float) -> IntArray:
    """Return the indices, largest of `values` first, that have less than `mass` of `probs` before them.

    Both are (N,); at least one index. A thousand of the largest are tried first: where they hold the mass,
    the rest cannot be kept.
    """
    k = 1024
    while True:
        order = best(values, k if 4 * k < values.size else values.size)
        cumulative = probs[order].cumsum()
        if cumulative[-1] >= mass or order.size == values.size:
            return order[: np.searchsorted(cumulative, mass) + 1]
        k *= 8
