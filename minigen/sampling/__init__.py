"""From the logits of one position to one token id: for the same logits and seed the same on every backend.

The caller brings one row of logits to the host; this is NumPy float64, and knows no framework. A draw takes
one uniform number, that of (seed, sequence, position), and inverts the distribution with it.
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


def _rows(logits: Any, tokens: Tokens, prompt_length: int, sampling: Sampling) -> Iterator[tuple[str, Candidates]]:
    """Yield ("model", all candidates), then (name, what is left after it) for each stage in use.

    A stage may write into the logits of the one before it: read them before asking for the next.
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
        with np.errstate(over="ignore", invalid="ignore"):  # a penalty of 1e308 ends in the error below
            row = stage(row, history, sampling)
        if name in LOGIT_STAGES and not np.isfinite(row.logits.max()):
            raise MinigenError(f"{name} leaves no token to choose: it is {sampling.flat()[name]!r}")
        yield name, row


def _candidates(logits: Any, tokens: Tokens, prompt_length: int, sampling: Sampling) -> Candidates:
    """Return the candidates after the last stage."""
    *_, (_, row) = _rows(logits, tokens, prompt_length, sampling)
    return row


def stages(logits: Any, tokens: Tokens, prompt_length: int, sampling: Sampling) -> Iterator[tuple[str, FloatArray]]:
    """Yield ("model", logits) and then (setting, logits after its stage), in order, for each setting in use.

    The arrays are (V,) float64, -inf for a token that was removed, and the caller's to keep. `process` is the
    softmax of the last one; the arguments and the errors are the same.
    """
    size = np.size(logits)
    for name, row in _rows(logits, tokens, prompt_length, sampling):
        whole = np.full(size, -np.inf)
        whole[row.ids] = row.logits
        yield name, whole


def process(logits: Any, tokens: Tokens, prompt_length: int, sampling: Sampling) -> FloatArray:
    """Return the probabilities (V,) float64 from which the token after `tokens` is drawn.

    `logits` is one row (V,) of any float dtype, `tokens` all ids so far, of which the first `prompt_length`
    are the prompt. Temperature 0 gives 1 to the best token (after the penalties, the n-gram ban and the bias)
    and 0 to the others.

    Raises MinigenError for logits that are NaN or all -inf, or where the penalties leave no token, UsageError for a
    `logit_bias` beyond the vocabulary.
    """
    row = _candidates(logits, tokens, prompt_length, sampling)
    probs = np.zeros(np.size(logits))
    probs[row.ids] = softmax(row.logits)
    return probs


def choose(probs: FloatArray, u: float) -> int:
    """Return the id at which the sum of `probs` (V,), in the order of ids, passes the share `u` in [0, 1).

    The order of ids, not that of probabilities, so that a tiny difference in a logit moves each boundary by
    as little and exchanges no two tokens. An id of probability 0 is never returned, and the sum of `probs`
    need not be quite 1.
    """
    assert 0 <= u <= 1
    cumulative = probs.cumsum()
    total = cumulative[-1]
    assert total > 0
    # Both find the first of equal sums, whose token added something. u * total may round up to the total.
    return int(min(cumulative.searchsorted(u * total, side="right"), cumulative.searchsorted(total)))


def sample(logits: Any, tokens: Tokens, prompt_length: int, sampling: Sampling, sequence: int = 0) -> int:
    """Return the id of the token after `tokens`, at position len(tokens): `choose` from `process`.

    The uniform number is that of (seed, sequence, position), so the same arguments give the same id.

    Raises what `process` does, and UsageError where a seed is needed and is None.
    """
    row = _candidates(logits, tokens, prompt_length, sampling)
    return int(row.ids[0]) if sampling.temperature == 0 else _draw(row, len(tokens), sampling, sequence)


def _draw(row: Candidates, position: int, sampling: Sampling, sequence: int) -> int:
    if sampling.seed is None:
        raise UsageError("seed is None: give a number, or let Sampling.seeded() draw one")
    return int(row.ids[choose(softmax(row.logits), uniform(sampling.seed, sequence, position))])


def sample_best(
    values: Any, ids: NDArray[Any], log_total: float, position: int, sampling: Sampling, sequence: int = 0
) -> int | None:
    """Return what `sample` returns for the whole row of which these are the best; None where they do not tell.

    The first three are as in `after_first_cut`; `sampling` is one for which `candidates_needed` gives a number.
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
    """Return the log-probability of the id `chosen`, and the `n` best (id, log-probability).

    `logits` (V,) are the model's own, before any stage. The best come first, equals in the order of their
    ids; n > V gives V of them. MinigenError as for `log_softmax`.
    """
    logprobs = log_softmax(logits)
    assert 0 <= chosen < logprobs.size
    return float(logprobs[chosen]), [(int(i), float(logprobs[i])) for i in best(logprobs, n)]
