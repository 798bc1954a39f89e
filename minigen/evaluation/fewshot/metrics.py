"""How an answer is judged: metrics of what was generated, and the choice by log-likelihood. All in float64."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from minigen.errors import MinigenError, shown
from minigen.evaluation.fewshot.file import Metric, Normalize, PromptError
from minigen.reading.patterns import Matcher

Scores = npt.NDArray[np.float64]

# Two scores this near are one. What comes equal from the model can part in the last bits of float64 when it is summed,
# divided or calibrated, by about 1e-13; the rounding of the model's own float32, 1e-7 and more, makes no tie and hides
# none, for a tie in float32 comes from the same operations on the same numbers.
TIE = 1e-9

_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


# -- what was generated --
def exact(output: str, answer: str) -> float:
    """1 where the two are the same text, white space around them aside."""
    return float(output.strip() == answer.strip())


def contains(output: str, answer: str) -> float:
    """1 where the answer, white space around it aside, stands somewhere in the output."""
    return float(answer.strip() in output)


def f1(output: str, answer: str) -> float:
    """The harmonic mean of precision and recall of words, as SQuAD has it (Rajpurkar et al. 2016).

    Both are brought to `words` first. Where one of them has none, it is 1 if the other has none either, else 0.
    """
    said, right = words(output), words(answer)
    if not said or not right:
        return float(said == right)
    common = (Counter(said) & Counter(right)).total()
    return 2 * common / (len(said) + len(right))


def words(text: str) -> list[str]:
    """The words of a text in lower case, without ASCII punctuation and without the articles a, an, the."""
    return _ARTICLE.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def regex(output: str, answer: str) -> float:
    """1 where the answer, a regular expression, matches somewhere in the output; anchor it with ^ and $ for all of it.

    Raises PromptError for an answer that is none, or that takes too long to search for.
    """
    try:
        re.compile(answer)  # its faults are named as Python names them
        return float(Matcher().stands_in(answer, output))
    except TimeoutError as error:
        raise PromptError(
            f"answer: {shown(answer)}: {error}; write it without repeats in repeats"
        ) from None
    except (re.error, ValueError, OverflowError, RecursionError) as error:
        raise PromptError(
            f"answer: {shown(answer)} is no regular expression: {error}; correct it"
        ) from None


def accuracy(output: str, answer: str) -> float:
    """1 where the choice taken is the answer; `pick` takes it, and counts a tie in part."""
    return float(output == answer)


METRICS: dict[Metric, Callable[[str, str], float]] = {
    "exact": exact,
    "contains": contains,
    "f1": f1,
    "regex": regex,
    "accuracy": accuracy,
}


def judge(metric: Metric, output: str, answer: str) -> float:
    """How right an output is, from 0 to 1. Raises PromptError for a `regex` answer that is no pattern."""
    return METRICS[metric](output, answer)


# -- choices --
def normalise(
    logprobs: Sequence[float] | Scores,
    tokens: Sequence[int],
    sizes: Sequence[int],
    unconditional: Sequence[float] | Scores | None,
    how: Normalize,
) -> Scores:
    """What is compared of each choice, (choices,), from its log-probability in nats.

    none: as it is. token, byte: divided by its tokens, or by its `sizes` in bytes. uncond: less its log-probability
    after a text that asks nothing, which is log P(choice | context) / P(choice | "Answer:") (Brown et al. 2020, 2.4).
    """
    given = np.asarray(logprobs, dtype=np.float64)
    if how == "token":
        return given / np.asarray(tokens, dtype=np.float64)
    if how == "byte":
        return given / np.asarray(sizes, dtype=np.float64)
    if how == "uncond":
        assert unconditional is not None
        return given - np.asarray(unconditional, dtype=np.float64)
    return given


def calibrate(scores: Sequence[float] | Scores, content_free: npt.ArrayLike) -> Scores:
    """Contextual calibration (Zhao et al. 2021): what the model prefers without content is divided out.

    `scores` (choices,) and `content_free` (inputs, choices) are log-scores of the same choices. With p the softmax
    over the choices, and p_cf the mean of the softmaxes of the content-free inputs, W = diag(p_cf)^-1 and b = 0.
    Returns log(W p) = log p - log p_cf, (choices,).
    """
    free = _log_softmax(np.asarray(content_free, dtype=np.float64))
    assert free.ndim == 2
    mean = np.logaddexp.reduce(free, axis=0) - np.log(len(free))
    found: Scores = _log_softmax(np.asarray(scores, dtype=np.float64)) - mean
    return found


def _log_softmax(x: Scores) -> Scores:
    found: Scores = x - np.logaddexp.reduce(x, axis=-1, keepdims=True)
    return found


def pick(scores: Sequence[float] | Scores, gold: int | None) -> tuple[int, int, float | None]:
    """The choice of the highest score: (its index, how many share that score, how right that is).

    Of m choices within TIE of the best, the first is taken, and the right one among them counts 1/m: what a fair draw
    would get. Without `gold` nothing is right or wrong: None. Raises MinigenError for a score that is no number.
    """
    values = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        bad = values[~np.isfinite(values)][0]
        raise MinigenError(
            f"the model gives a choice the score {bad}: check its weights, or run it in float32"
        )
    best = np.flatnonzero(values >= values.max() - TIE)
    right = None if gold is None else float(gold in best) / len(best)
    return int(best[0]), len(best), right
