"""The stages from the model's logits to the distribution that is drawn from, in NumPy float64.

There is one definition for every backend. A stage takes the remaining candidates and returns
fewer of them, or the same with other logits; `STAGES` at the end lists them.
"""

from collections.abc import Callable
from math import log, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minigen.errors import UsageError
from minigen.sampling.numeric import (
    FloatArray,
    IntArray,
    at_least_kth,
    information,
    nucleus,
    softmax,
)
from minigen.sampling.settings import Sampling


class Candidates(NamedTuple):
    """The candidates for one position: `ids` (N,), increasing, and `logits` (N,).

    A stage may write into them.
    """

    ids: IntArray
    logits: FloatArray

    def take(self, kept: NDArray[Any]) -> "Candidates":
        """The candidates `kept`, increasing indices or a mask."""
        return Candidates(self.ids[kept], self.logits[kept])


class History(NamedTuple):
    """The tokens so far: `tokens` (T,), the first `prompt_length` of which are the prompt."""

    tokens: IntArray
    prompt_length: int

    def seen(self, size: int, start: int = 0) -> IntArray:
        """tokens[start:] without ids >= `size`, the number of logits: a model may embed more."""
        tokens = self.tokens[start:]
        return tokens[tokens < size]


def _repetition(row: Candidates, history: History, sampling: Sampling) -> Candidates:
    # Keskar et al. 2019. As is usual since, a negative logit is multiplied, or its token would
    # gain.
    penalty, logits = sampling.penalties.repetition_penalty, row.logits
    seen = history.seen(logits.size)
    old = logits[seen]
    logits[seen] = np.where(
        old < 0, old * penalty, old / penalty
    )  # twice for an id: the same value
    return row


def _presence(row: Candidates, history: History, sampling: Sampling) -> Candidates:
    logits = row.logits
    generated = np.unique(history.seen(logits.size, history.prompt_length))
    logits[generated] -= sampling.penalties.presence_penalty
    return row


def _frequency(row: Candidates, history: History, sampling: Sampling) -> Candidates:
    logits = row.logits
    seen, counts = np.unique(history.seen(logits.size, history.prompt_length), return_counts=True)
    logits[seen] -= counts * sampling.penalties.frequency_penalty
    return row


def _no_repeat_ngram(row: Candidates, history: History, sampling: Sampling) -> Candidates:
    # Paulus et al. 2018: ban what followed earlier occurrences of the last n - 1 tokens.
    n, tokens = sampling.penalties.no_repeat_ngram_size, history.tokens
    starts = len(tokens) - n + 1
    if starts <= 0:
        return row
    same = np.ones(starts, dtype=bool)
    for offset, token in enumerate(tokens[starts:]):
        same &= tokens[offset : offset + starts] == token
    banned = tokens[n - 1 :][same]
    row.logits[banned[banned < row.logits.size]] = -np.inf
    return row


def _logit_bias(row: Candidates, history: History, sampling: Sampling) -> Candidates:
    logits = row.logits
    for token, bias in sampling.penalties.logit_bias.items():
        if token >= logits.size:
            raise UsageError(
                f"logit_bias names token {token}: this model's ids end at {logits.size - 1}"
            )
        logits[token] += bias
    return row


def _temperature(row: Candidates, history: History, sampling: Sampling) -> Candidates:
    if sampling.temperature == 0:
        return row.take(np.array([row.logits.argmax()]))
    # Shifted so that the best logit is 0: probabilities stay, and no tiny temperature overflows.
    logits = row.logits
    logits -= logits.max()
    logits /= sampling.temperature
    return row


def _top_k(row: Candidates, history: History, sampling: Sampling) -> Candidates:
    k = sampling.cuts.top_k
    if k >= row.ids.size:
        return row
    return row.take(at_least_kth(row.logits, k))


def _top_p(row: Candidates, history: History, sampling: Sampling) -> Candidates:
    # Holtzman et al. 2020, "The curious case of neural text degeneration".
    return row.take(np.sort(nucleus(row.logits, softmax(row.logits), sampling.cuts.top_p)))


def _min_p(row: Candidates, history: History, sampling: Sampling) -> Candidates:
    # Nguyen et al. 2024, "Turning up the heat": p >= min_p * max(p), in logarithms.
    return row.take(row.logits - row.logits.max() >= log(sampling.cuts.min_p))


def _typical(row: Candidates, history: History, sampling: Sampling) -> Candidates:
    # Meister et al. 2022, "Locally typical sampling"; as in transformers, what ties with the last
    # stays.
    probs, logprobs, entropy = information(row.logits)
    nearness = -np.abs(logprobs + entropy)
    farthest = nucleus(nearness, probs, sampling.cuts.typical_p)[-1]
    return row.take(nearness >= nearness[farthest])


def _epsilon(row: Candidates, history: History, sampling: Sampling) -> Candidates:
    # Hewitt et al. 2022, "Truncation sampling as language model desmoothing".
    probable = softmax(row.logits) >= sampling.cuts.epsilon_cutoff
    return row.take(probable | (row.logits == row.logits.max()))


def _eta(row: Candidates, history: History, sampling: Sampling) -> Candidates:
    # Hewitt et al. 2022, with its alpha = sqrt(epsilon).
    probs, _, entropy = information(row.logits)
    epsilon = sampling.cuts.eta_cutoff
    eta = min(epsilon, sqrt(epsilon) * float(np.exp(-entropy)))
    return row.take((probs >= eta) | (row.logits == row.logits.max()))


# In the order of transformers. A stage has the name of its setting, and runs unless that is the
# default.
STAGES: tuple[tuple[str, Callable[[Candidates, History, Sampling], Candidates]], ...] = (
    ("repetition_penalty", _repetition),
    ("presence_penalty", _presence),
    ("frequency_penalty", _frequency),
    ("no_repeat_ngram_size", _no_repeat_ngram),
    ("logit_bias", _logit_bias),
    ("temperature", _temperature),
    ("top_k", _top_k),
    ("top_p", _top_p),
    ("min_p", _min_p),
    ("typical_p", _typical),
    ("epsilon_cutoff", _epsilon),
    ("eta_cutoff", _eta),
)

# Those that change the logits of a whole row; only these use the history.
LOGIT_STAGES = tuple(name for name, _ in STAGES[:5])
