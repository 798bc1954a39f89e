"""The arithmetic of the sampling stages: softmax, entropy, and the few best of very many values.

Allocating arrays of a vocabulary's size costs more than computing with them, so some steps are
done in place. The functions that select look for the few best before they sort, which gives the
same result without sorting a whole vocabulary.
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
    """The ids 0 .. size - 1: (size,), read-only, because it is cached and shared."""
    ids = np.arange(size)
    ids.flags.writeable = False
    return ids


def check_row(logits: FloatArray) -> FloatArray:
    """`logits` (V,) unchanged. Raises MinigenError if they do not define a distribution."""
    assert logits.ndim == 1
    assert logits.size
    highest = logits.max()  # NaN where there is one
    if np.isfinite(highest):
        return logits
    if highest == -np.inf:
        raise MinigenError(
            "the model produced -inf as the logit of every token: check its weights and its dtype"
        )
    kind = "NaN" if np.isnan(highest) else "+inf"
    raise MinigenError(
        f"the model produced {kind} as a logit: check its weights, or run it in float32"
    )


def softmax(logits: FloatArray) -> FloatArray:
    """The probabilities (N,) of `logits` (N,), the largest of which must be finite."""
    weights: FloatArray = logits - logits.max()
    np.exp(weights, out=weights)
    weights /= weights.sum()
    return weights


def log_softmax(logits: Any) -> FloatArray:
    """The log-probabilities (V,) float64 of a row of logits (V,) of any dtype; -inf stays -inf.

    MinigenError if they do not define a distribution: a NaN, +inf, or nothing above -inf.
    """
    row = check_row(np.asarray(logits, dtype=np.float64))
    shifted: FloatArray = row - row.max()
    shifted -= log(np.exp(shifted).sum())
    return shifted


def information(logits: FloatArray) -> tuple[FloatArray, FloatArray, float]:
    """The probabilities (N,), log-probabilities (N,) and entropy in nats of `logits` (N,)."""
    logprobs = log_softmax(logits)
    probs: FloatArray = np.exp(logprobs)
    terms = np.maximum(logprobs, -1e300)  # 0 * -inf would be NaN
    terms *= probs
    return probs, logprobs, -float(terms.sum())


def at_least_kth(values: FloatArray, k: int) -> IntArray:
    """The increasing indices of all values >= the k-th largest of `values` (N,), 1 <= k <= N.

    A column's maximum is one of the values, so k columns with a maximum >= t are k values >= t:
    the k-th largest maximum is never above the k-th largest value, and one cheap pass leaves
    little to partition.
    """
    columns = 4 * k
    rows = values.size // columns
    near = all_ids(values.size)
    if rows > 1:
        maxima = values[: rows * columns].reshape(rows, columns).max(axis=0)
        near = np.flatnonzero(values >= np.partition(maxima, columns - k)[columns - k])
    among = values[near]
    kth = np.partition(among, among.size - k)[among.size - k]
    indices: IntArray = near[among >= kth]
    return indices


def best(values: FloatArray, k: int) -> IntArray:
    """The indices of the k largest `values` (N,), best first, among equals the lower first."""
    if k <= 0:
        return np.empty(0, dtype=np.int64)
    near = all_ids(values.size)
    if k < values.size:
        near = at_least_kth(values, k)
    return near[np.argsort(-values[near], kind="stable")][:k]


def nucleus(values: FloatArray, probs: FloatArray, mass: float) -> IntArray:
    """The indices, largest of `values` first, that have less than `mass` of `probs` before them.

    Both are (N,); there is at least one index. A thousand of the largest are tried first: if they
    have the mass, the others cannot be among them.
    """
    k = 1024
    while True:
        if 4 * k >= values.size:
            k = values.size
        order = best(values, k)
        cumulative = probs[order].cumsum()
        if cumulative[-1] >= mass or order.size == values.size:
            return order[: np.searchsorted(cumulative, mass) + 1]
        k *= 8
