"""From the logits of one position to a token id, equal on every backend for equal logits and seed.

The caller brings one row of logits to the host; this is NumPy in float64, without a framework. A
draw takes one uniform number, that of (seed, sequence, position), and inverts the distribution
with it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigen.errors import MinigenError, UsageError
from minigen.sampling.narrow import after_first_cut, candidates_needed, first_cut
from minigen.sampling.numeric import FloatArray, all_ids, best, check_row, log_softmax, softmax
from minigen.sampling.settings import SETTINGS, Cuts, Penalties, Sampling
from minigen.sampling.stages import LOGIT_STAGES, STAGES, Candidates, History
from minigen.sampling.uniforms import uniform

__all__ = [
    "SETTINGS",
    "Cuts",
    "Penalties",
    "Sampling",
    "candidates_needed",
    "check_row",
    "choose",
    "log_softmax",
    "process",
    "sample",
    "sample_best",
    "stages",
    "top_logprobs",
]

Tokens = Sequence[int] | NDArray[np.integer[Any]]


def _rows(
    logits: Any, tokens: Tokens, prompt_length: int, sampling: Sampling
) -> Iterator[tuple[str, Candidates]]:
    """Yields ("model", all candidates), then (name, the remaining ones) for each stage in use.

    A stage may write into the logits of the previous one, so they must be read before the next.
    """
    assert 0 <= prompt_length <= len(tokens)
    raw = check_row(np.array(logits, dtype=np.float64))  # a copy: the stages write into it
    row = Candidates(all_ids(raw.size), raw)
    yield "model", row
    history = History(np.empty(0, dtype=np.int64), 0)
    if not sampling.active.isdisjoint(LOGIT_STAGES):
        history = History(np.asarray(tokens, dtype=np.int64), prompt_length)
        assert history.tokens.min(initial=0) >= 0
    for name, stage in STAGES:
        if name not in sampling.active:
            continue
        # A penalty of 1e308 overflows, and ends in the error below.
        with np.errstate(over="ignore", invalid="ignore"):
            row = stage(row, history, sampling)
        if name in LOGIT_STAGES and not np.isfinite(row.logits.max()):
            value = sampling.flat()[name]
            raise MinigenError(f"{name} leaves no token to choose: it is {value!r}")
        yield name, row


def _candidates(logits: Any, tokens: Tokens, prompt_length: int, sampling: Sampling) -> Candidates:
    """The candidates after the last stage."""
    *_, (_, row) = _rows(logits, tokens, prompt_length, sampling)
    return row


def stages(
    logits: Any, tokens: Tokens, prompt_length: int, sampling: Sampling
) -> Iterator[tuple[str, FloatArray]]:
    """Yields ("model", logits), then (setting, logits after its stage) for each setting in use.

    The arrays are (V,) float64, with -inf for a token that was removed; the caller may keep them.
    `process` is the softmax of the last one; the arguments and errors are the same.
    """
    size = np.size(logits)
    for name, row in _rows(logits, tokens, prompt_length, sampling):
        whole = np.full(size, -np.inf)
        whole[row.ids] = row.logits
        yield name, whole


def process(logits: Any, tokens: Tokens, prompt_length: int, sampling: Sampling) -> FloatArray:
    """The probabilities (V,) float64 that the token after `tokens` is drawn from.

    With temperature 0 it is 1 for the best token (after the penalties, the n-gram ban and the bias)
    and 0 for the others.

    Args:
        logits: One row (V,) of any float dtype.
        tokens: All ids so far.
        prompt_length: How many of them are the prompt.
        sampling: The settings.

    Raises MinigenError: the logits are NaN or all -inf, or the penalties leave no token.
    Raises UsageError: `logit_bias` names an id beyond the vocabulary.
    """
    row = _candidates(logits, tokens, prompt_length, sampling)
    probs = np.zeros(np.size(logits))
    probs[row.ids] = softmax(row.logits)
    return probs


def choose(probs: FloatArray, u: float) -> int:
    """The id at which the sum of `probs` (V,), in the order of ids, passes `u`, in [0, 1).

    In the order of ids, not of probabilities, a tiny difference in a logit moves each boundary by
    as little and does not exchange tokens. An id of probability 0 is never returned, and `probs`
    need not sum to exactly 1.
    """
    assert 0 <= u <= 1
    cumulative = probs.cumsum()
    total = cumulative[-1]
    assert total > 0
    # Both find the first of equal sums, whose token has a probability > 0. u * total may round up
    # to the total.
    chosen = cumulative.searchsorted(u * total, side="right")
    last = cumulative.searchsorted(total)
    return int(min(chosen, last))


def sample(
    logits: Any, tokens: Tokens, prompt_length: int, sampling: Sampling, sequence: int = 0
) -> int:
    """The id of the token after `tokens`: `choose` from `process`.

    The uniform number is that of (seed, sequence, position), with the position len(tokens), so
    equal arguments give equal ids. The errors are those of `process`, and UsageError if a seed is
    needed and is None.
    """
    row = _candidates(logits, tokens, prompt_length, sampling)
    if sampling.temperature == 0:
        return int(row.ids[0])
    return _draw(row, len(tokens), sampling, sequence)


def _draw(row: Candidates, position: int, sampling: Sampling, sequence: int) -> int:
    if sampling.seed is None:
        raise UsageError("seed is None: give a number, or use Sampling.seeded()")
    u = uniform(sampling.seed, sequence, position)
    return int(row.ids[choose(softmax(row.logits), u)])


def sample_best(
    values: Any,
    ids: NDArray[Any],
    log_total: float,
    position: int,
    sampling: Sampling,
    sequence: int = 0,
) -> int | None:
    """What `sample` returns for a whole row, from its best logits; None if they do not suffice.

    `values`, `ids` and `log_total` are those of `after_first_cut`; `sampling` is one for which
    `candidates_needed` returns a number.
    """
    row = after_first_cut(values, ids, log_total, sampling)
    if row is None:
        return None
    names = [name for name, _ in STAGES]
    for name, stage in STAGES[names.index(str(first_cut(sampling))) + 1 :]:
        if name in sampling.active:
            row = stage(row, History(np.empty(0, dtype=np.int64), 0), sampling)
    return _draw(row, position, sampling, sequence)


def top_logprobs(logits: Any, chosen: int, n: int) -> tuple[float, list[tuple[int, float]]]:
    """The log-probability of the id `chosen`, and the `n` best (id, log-probability).

    `logits` (V,) are the model's own, before any stage. The best come first, equal ones in the
    order of their ids; n > V gives V of them. The errors are those of `log_softmax`.
    """
    logprobs = log_softmax(logits)
    assert 0 <= chosen < logprobs.size
    top = [(int(token), float(logprobs[token])) for token in best(logprobs, n)]
    return float(logprobs[chosen]), top
