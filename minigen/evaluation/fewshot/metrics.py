"""How answers are judged: metrics of generated text, and choice by log-likelihood in float64."""

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

# Two scores this near are a tie. Scores that are equal in the model can differ by about 1e-13 once
# they are summed, divided or calibrated in float64. The model's own rounding in float32, 1e-7 and
# more, neither makes a tie nor hides one: equal float32 scores come from equal operations.
TIE = 1e-9

_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


# -- generated text --
def exact(output: str, answer: str) -> float:
    """1 if the two texts are equal, except for white space around them."""
    return float(output.strip() == answer.strip())


def contains(output: str, answer: str) -> float:
    """1 if the output contains the answer, except for white space around it."""
    return float(answer.strip() in output)


def f1(output: str, answer: str) -> float:
    """The harmonic mean of precision and recall of `words`, as in SQuAD (Rajpurkar et al. 2016).

    If one of the two has no words, it is 1 if the other has none either, else 0.
    """
    output_words, answer_words = words(output), words(answer)
    if not output_words or not answer_words:
        return float(output_words == answer_words)
    common = (Counter(output_words) & Counter(answer_words)).total()
    return 2 * common / (len(output_words) + len(answer_words))


def words(text: str) -> list[str]:
    """The lower-case words of a text, without ASCII punctuation and the articles a, an, the."""
    return _ARTICLE.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def regex(output: str, answer: str) -> float:
    """1 if the answer, a regular expression, matches somewhere in the output.

    Anchor it with ^ and $ to match all of it.

    Raises PromptError for an answer that is not one, or that takes too long to search for.
    """
    try:
        re.compile(answer)  # for Python's own description of an error
        return float(Matcher().stands_in(answer, output))
    except TimeoutError as error:
        raise PromptError(f"answer: {shown(answer)}: {error}; avoid nested repetition") from None
    except (re.error, ValueError, OverflowError, RecursionError) as error:
        raise PromptError(
            f"answer: {shown(answer)} is not a regular expression: {error}; correct it"
        ) from None


def accuracy(output: str, answer: str) -> float:
    """1 if the chosen answer is the right one; `pick` chooses it, and gives a tie a part of 1."""
    return float(output == answer)


METRICS: dict[Metric, Callable[[str, str], float]] = {
    "exact": exact,
    "contains": contains,
    "f1": f1,
    "regex": regex,
    "accuracy": accuracy,
}


def judge(metric: Metric, output: str, answer: str) -> float:
    """How right an output is, from 0 to 1. Raises PromptError for an invalid answer of `regex`."""
    return METRICS[metric](output, answer)


# -- choices --
def normalize(
    logprobs: Sequence[float] | Scores,
    tokens: Sequence[int],
    sizes: Sequence[int],
    unconditional: Sequence[float] | Scores | None,
    how: Normalize,
) -> Scores:
    """The scores (choices,) that are compared, from the choices' log-probabilities in nats.

    none: unchanged. token, byte: divided by the number of tokens, or by the `sizes` in bytes.
    uncond: minus the log-probability after a text that asks nothing, that is
    log P(choice | context) / P(choice | "Answer:") (Brown et al. 2020, 2.4).
    """
    scores = np.asarray(logprobs, dtype=np.float64)
    if how == "token":
        return scores / np.asarray(tokens, dtype=np.float64)
    if how == "byte":
        return scores / np.asarray(sizes, dtype=np.float64)
    if how == "uncond":
        assert unconditional is not None
        return scores - np.asarray(unconditional, dtype=np.float64)
    return scores


def calibrate(scores: Sequence[float] | Scores, content_free: npt.ArrayLike) -> Scores:
    """Contextual calibration (Zhao et al. 2021): divides out the preference without content.

    `scores` (choices,) and `content_free` (inputs, choices) are log-scores of the same choices.
    With p the softmax over the choices, and p_cf the mean of the softmaxes of the content-free
    inputs, W = diag(p_cf)^-1 and b = 0. Returns log(W p) = log p - log p_cf, (choices,).
    """
    log_p = _log_softmax(np.asarray(scores, dtype=np.float64))
    each_log_p_cf = _log_softmax(np.asarray(content_free, dtype=np.float64))
    assert each_log_p_cf.ndim == 2
    log_p_cf = np.logaddexp.reduce(each_log_p_cf, axis=0) - np.log(len(each_log_p_cf))
    calibrated: Scores = log_p - log_p_cf
    return calibrated


def _log_softmax(x: Scores) -> Scores:
    log_p: Scores = x - np.logaddexp.reduce(x, axis=-1, keepdims=True)
    return log_p


def pick(scores: Sequence[float] | Scores, gold: int | None) -> tuple[int, int, float | None]:
    """The choice with the highest score: (its index, how many share that score, how right it is).

    Of m choices within TIE of the best, the first is chosen. It counts 1/m if the right one is
    among them, as a fair draw would on average. Without `gold` the third value is None.
    Raises MinigenError for a score that is NaN or infinite.
    """
    values = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        bad = values[~np.isfinite(values)][0]
        raise MinigenError(
            f"the model gave a choice the score {bad}: check its weights, or run it in float32"
        )
    tied = np.flatnonzero(values >= values.max() - TIE)
    correct = None if gold is None else float(gold in tied) / len(tied)
    return int(tied[0]), len(tied), correct
