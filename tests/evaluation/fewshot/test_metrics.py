"""Metrics and choices: against values worked out by hand, and what must hold of all of them."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigen.errors import MinigenError
from minigen.evaluation.fewshot import PromptError
from minigen.evaluation.fewshot.file import Metric
from minigen.evaluation.fewshot.metrics import (
    METRICS,
    TIE,
    calibrate,
    judge,
    normalize,
    pick,
    words,
)

JUDGED: list[tuple[Metric, str, str, float]] = [
    ("exact", " fromage\n", "fromage", 1),
    ("exact", "Fromage", "fromage", 0),
    ("exact", "from age", "fromage", 0),
    ("contains", "It is Paris, of course.", " Paris ", 1),
    ("contains", "It is paris.", "Paris", 0),
    ("f1", "The Cat!", "a cat", 1),
    ("f1", "the black cat", "cat", 2 / 3),  # precision 1/2, recall 1
    ("f1", "cat cat dog", "cat bird", 2 / 5),  # one in common of 3 and of 2
    ("f1", "dog", "cat", 0),
    ("f1", "the", "an", 1),  # no words on either side
    ("f1", "", "cat", 0),
    ("f1", "don't", "dont", 1),
    ("f1", "théâtre", "the", 0),  # an article only as a whole word
    ("regex", "about 12 km", r"\b1[0-9]\b", 1),
    ("regex", "about 120 km", r"\b1[0-9]\b", 0),
    ("regex", "12 km", "^12$", 0),
    ("accuracy", "yes", "yes", 1),
    ("accuracy", "yes ", "yes", 0),
]


@pytest.mark.parametrize(("metric", "output", "answer", "wanted"), JUDGED)
def test_judge(metric: Metric, output: str, answer: str, wanted: float) -> None:
    assert judge(metric, output, answer) == pytest.approx(wanted, abs=1e-15)


def test_words() -> None:
    assert words("  The U.S.A. isn't\n(an) island... ") == ["usa", "isnt", "island"]


def test_a_bad_pattern_is_an_error() -> None:
    with pytest.raises(
        PromptError, match=r"^answer: '\(' is not a regular expression: missing \), .*; correct it$"
    ):
        judge("regex", "x", "(")


@given(st.sampled_from(sorted(METRICS)), st.text(), st.text(min_size=1))
def test_metrics_are_bounded_and_take_the_answer_itself(
    metric: Metric, output: str, answer: str
) -> None:
    if metric == "regex":
        answer = "x"
    assert 0 <= judge(metric, output, answer) <= 1
    assert judge(metric, answer, answer) == 1


@given(st.text(alphabet="ab c"), st.text(alphabet="ab c"))
def test_f1_is_symmetric_and_does_not_see_order(a: str, b: str) -> None:
    assert judge("f1", a, b) == judge("f1", b, a)
    assert judge("f1", " ".join(reversed(a.split())), b) == judge("f1", a, b)


def test_pick() -> None:
    assert pick([-3.0, -1.0, -2.0], 1) == (1, 1, 1.0)
    assert pick([-3.0, -1.0, -2.0], 2) == (1, 1, 0.0)
    assert pick([-3.0, -1.0, -2.0], None) == (1, 1, None)
    assert pick([-1.0, -1.0, -2.0, -1.0], 3) == (0, 3, 1 / 3)
    assert pick([-1.0, -1.0, -2.0], 2) == (0, 2, 0.0)
    assert pick([-1.0, -1.0 + TIE / 2], 0) == (0, 2, 0.5)
    assert pick([-1.0, -1.0 + TIE * 2], 0) == (1, 1, 0.0)


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_a_score_that_is_no_number(bad: float) -> None:
    with pytest.raises(
        MinigenError, match=rf"^the model gave a choice the score {bad}: check its weights, .*$"
    ):
        pick([-1.0, bad], 0)


@given(st.lists(st.sampled_from([-3.0, -2.0, -1.0]), min_size=1, max_size=6))
def test_picking_shares_one_point_among_the_tied(scores: list[float]) -> None:
    parts = [pick(scores, gold)[2] for gold in range(len(scores))]
    assert sum(part or 0 for part in parts) == pytest.approx(1)
    best, tied, _ = pick(scores, 0)
    assert scores[best] == max(scores)
    assert tied == scores.count(max(scores))


def test_normalize() -> None:
    given_ = ([-6.0, -8.0], [2, 4], [3, 16], [-1.0, -7.0])
    assert normalize(*given_, "none").tolist() == [-6, -8]
    assert normalize(*given_, "token").tolist() == [-3, -2]
    assert normalize(*given_, "byte").tolist() == [-2, -0.5]
    assert normalize(*given_, "uncond").tolist() == [-5, -1]


def test_calibrate_by_hand() -> None:
    # p = (0.6, 0.4); without content (0.8, 0.2) and (0.7, 0.3), together (0.75, 0.25): W p = (0.8, 1.6).
    p = [log(0.06), log(0.04)]  # scores need not sum to one
    free = [[log(0.8), log(0.2)], [log(0.07), log(0.03)]]
    assert np.exp(calibrate(p, free)) == pytest.approx([0.8, 1.6], rel=1e-12)


scores = st.lists(st.floats(-50, 0), min_size=3, max_size=3)


@given(scores, st.floats(-5, 5))
def test_calibration_by_no_preference_changes_no_order(given_: list[float], shift: float) -> None:
    even = calibrate(given_, [[shift] * 3])
    assert np.diff(even) == pytest.approx(np.diff(given_), abs=1e-9)
    assert calibrate(given_, [given_, given_]) == pytest.approx(
        [0, 0, 0], abs=1e-9
    )  # nothing but the preference


def test_calibration_of_the_nearly_impossible_is_finite() -> None:
    assert np.isfinite(calibrate([-1.0, -2000.0], [[-1.0, -3000.0]])).all()
