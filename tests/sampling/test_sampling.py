"""Choosing a token: edges of the stages, of the draw, of the errors, and what a log-probability is."""

import re
from math import log
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigen.errors import MinigenError, UsageError
from minigen.sampling import Sampling, choose, log_softmax, process, sample, stages, top_logprobs
from minigen.sampling.uniforms import uniform

LOGITS = np.array([0.0, 2.0, 1.0, 2.0, -1.0])


def kept(
    logits: Any, tokens: list[int] | None = None, prompt_length: int = 0, **setting: Any
) -> list[int]:
    return np.flatnonzero(
        process(logits, tokens or [], prompt_length, Sampling.of(**setting))
    ).tolist()


def test_greedy_is_the_best_token_and_the_lowest_among_equals() -> None:
    assert process(LOGITS, [], 0, Sampling.of(temperature=0)).tolist() == [0, 1, 0, 0, 0]
    assert sample(LOGITS, [], 0, Sampling.of(temperature=0)) == 1
    assert sample(LOGITS, [1], 0, Sampling.of(temperature=0, repetition_penalty=1.1)) == 3
    assert sample(LOGITS, [1, 3], 0, Sampling.of(temperature=0, no_repeat_ngram_size=1)) == 2
    assert sample(LOGITS, [1, 3], 1, Sampling.of(temperature=0, presence_penalty=0.1)) == 1
    assert sample(LOGITS, [1, 3], 0, Sampling.of(temperature=0, logit_bias={4: 100})) == 4
    every_cut = {
        "top_k": 3,
        "top_p": 0.1,
        "min_p": 0.5,
        "typical_p": 0.2,
        "epsilon_cutoff": 0.9,
        "eta_cutoff": 0.9,
    }
    assert kept(LOGITS, temperature=0, **every_cut) == [1]


def test_ties_at_an_edge() -> None:
    assert kept(LOGITS, top_k=1) == [1, 3]  # all that tie with the k-th
    assert kept(LOGITS, top_p=0.1) == [1]  # no more than are needed, lowest ids first
    assert kept(np.zeros(8), top_p=0.5) == [0, 1, 2, 3]
    assert kept(np.zeros(8), top_p=0.51) == [0, 1, 2, 3, 4]
    assert kept(np.zeros(8192), top_p=0.25) == list(range(2048))


def test_each_cut_leaves_a_token() -> None:
    flat = np.zeros(100)
    for setting in [
        {"top_p": 1e-9},
        {"top_k": 1},
        {"min_p": 1.0},
        {"typical_p": 1e-9},
        {"epsilon_cutoff": 0.99},
        {"eta_cutoff": 0.99},
    ]:
        assert kept(flat, **setting)
        assert kept(LOGITS, **setting)
        assert kept([3.0], **setting) == [0]


def test_penalties_count_what_they_should() -> None:
    tokens = [0, 0, 1, 2, 2]  # the prompt is the first two
    none = log_softmax(LOGITS)
    for name, change in [
        ("presence_penalty", [0, 1, 1, 0, 0]),
        ("frequency_penalty", [0, 1, 2, 0, 0]),
    ]:
        probs = process(LOGITS, tokens, 2, Sampling.of(**{name: 0.5}))
        np.testing.assert_allclose(
            np.log(probs), log_softmax(none - 0.5 * np.array(change)), atol=1e-12
        )
    probs = process(LOGITS - 1, [0, 0, 1], 3, Sampling.of(repetition_penalty=2.0))
    np.testing.assert_allclose(np.log(probs), log_softmax([-2.0, 0.5, 0.0, 1.0, -2.0]), atol=1e-12)


def test_an_ngram_is_not_repeated() -> None:
    assert kept(LOGITS, [1, 2, 3, 1, 2], no_repeat_ngram_size=3) == [0, 1, 2, 4]
    assert kept(LOGITS, [1, 2, 1, 3, 1], no_repeat_ngram_size=2) == [0, 1, 4]
    assert kept(LOGITS, [1, 1], no_repeat_ngram_size=3) == [0, 1, 2, 3, 4]
    assert kept(LOGITS, [1, 9, 1, 9, 1], no_repeat_ngram_size=2) == [
        0,
        1,
        2,
        3,
        4,
    ]  # 9: no logit to ban


def test_ids_beyond_the_logits_are_passed_over() -> None:
    history = {"repetition_penalty": 2.0, "presence_penalty": 1.0, "frequency_penalty": 1.0}
    probs = process(LOGITS, [7, 1], 0, Sampling.of(**history))
    np.testing.assert_array_equal(probs, process(LOGITS, [1], 0, Sampling.of(**history)))


def test_extreme_temperatures_and_logits() -> None:
    assert process([1e30, 0.0], [], 0, Sampling.of(temperature=5e-324)).tolist() == [1, 0]
    assert process(LOGITS + 300, [], 0, Sampling.of(temperature=1e300)) == pytest.approx(0.2)
    assert process([-1e300, 1e300, -np.inf], [], 0, Sampling()).tolist() == [0, 1, 0]


def test_stages_show_what_each_one_did() -> None:
    sampling = Sampling.of(temperature=0.5, top_k=2, min_p=0.9, logit_bias={4: 2.5}, seed=3)
    shown = dict(stages(LOGITS, [], 0, sampling))
    assert list(shown) == ["model", "logit_bias", "temperature", "top_k", "min_p"]
    np.testing.assert_array_equal(shown["model"], LOGITS)
    assert shown["logit_bias"].tolist() == [0, 2, 1, 2, 1.5]
    assert shown["temperature"].tolist() == [-4, 0, -2, 0, -1]
    assert shown["top_k"].tolist() == [-np.inf, 0, -np.inf, 0, -np.inf]
    np.testing.assert_allclose(
        np.exp(log_softmax(shown["min_p"])), process(LOGITS, [], 0, sampling)
    )
    assert list(dict(stages(LOGITS, [], 0, Sampling()))) == ["model"]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_any_float_dtype(dtype: str) -> None:
    probs = process(LOGITS.astype(dtype), [], 0, Sampling.of(top_p=0.9))
    assert probs.dtype == np.float64
    np.testing.assert_array_equal(probs, process(LOGITS, [], 0, Sampling.of(top_p=0.9)))


@pytest.mark.parametrize(
    ("logits", "setting", "error", "message"),
    [
        ([0.0, np.nan], {}, MinigenError, "the model produced NaN as a logit: "),
        ([0.0, np.inf], {}, MinigenError, "the model produced +inf as a logit: "),
        ([-np.inf] * 2, {}, MinigenError, "the model produced -inf as the logit of every token: "),
        (
            [0.0, 1.0],
            {"logit_bias": {2: 1}},
            UsageError,
            "logit_bias names token 2: this model's ids end at 1",
        ),
        (
            [0.0, 1.0],
            {"no_repeat_ngram_size": 1},
            MinigenError,
            "no_repeat_ngram_size leaves no token to choose",
        ),
        (
            [5.0, 1.0],
            {"repetition_penalty": 1e-308},
            MinigenError,
            "repetition_penalty leaves no token to choose",
        ),
        (
            [5.0, 1.0],
            {"frequency_penalty": 1e308},
            MinigenError,
            "frequency_penalty leaves no token to choose",
        ),
    ],
)
def test_what_gives_no_distribution(
    logits: Any, setting: dict[str, Any], error: Any, message: str
) -> None:
    for temperature in (0, 1):
        with pytest.raises(error, match=f"^{re.escape(message)}[^\n]*$"):
            sample(logits, [0, 1, 0, 1], 0, Sampling.of(temperature=temperature, seed=1, **setting))


def test_choose_inverts_the_distribution() -> None:
    probs = np.array([0.0, 0.25, 0.0, 0.5, 0.25, 0.0])
    edges = [(0, 1), (0.2499, 1), (0.25, 3), (0.7499, 3), (0.75, 4), (1 - 2**-53, 4), (1, 4)]
    assert [choose(probs, u) for u, _ in edges] == [chosen for _, chosen in edges]
    assert choose(np.array([1e-320, 0.0]), 0.9) == 0


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    st.lists(st.one_of(st.just(0.0), st.floats(0, 1)), min_size=1, max_size=30).filter(
        lambda p: sum(p) > 0
    ),
    st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1 - 2**-53, 1.0])),
)
def test_choose_never_returns_an_impossible_id(weights: list[float], u: float) -> None:
    chosen = choose(np.array(weights), u)
    assert weights[chosen] > 0
    assert sum(weights[:chosen]) <= u * sum(weights) * (1 + 1e-12)
    assert u * sum(weights) <= sum(weights[: chosen + 1]) * (1 + 1e-12)


def test_sample_is_choose_with_the_number_of_its_position() -> None:
    logits = np.random.default_rng(1).normal(0, 3, 3000).astype(np.float32)
    drawn = set()
    for length in range(60):
        tokens = list(range(length))
        for sequence, setting in [
            (0, {}),
            (3, {"top_k": 40, "top_p": 0.9, "repetition_penalty": 1.2}),
        ]:
            sampling = Sampling.of(seed=11, **setting)
            token = sample(logits, tokens, 0, sampling, sequence)
            assert token == choose(
                process(logits, tokens, 0, sampling), uniform(11, sequence, length)
            )
            drawn.add(token)
    assert len(drawn) > 20


def test_draws_follow_the_distribution() -> None:
    sampling = Sampling.of(temperature=0.7, seed=5)
    drawn = np.bincount([sample(LOGITS, [0] * 7, 7, sampling, i) for i in range(5000)], minlength=5)
    expected = 5000 * process(LOGITS, [0] * 7, 7, sampling)
    assert (
        (drawn - expected) ** 2 / expected
    ).sum() < 18.5  # chi-squared, 4 degrees of freedom: 0.1 %


def test_a_draw_needs_a_seed() -> None:
    with pytest.raises(UsageError, match=r"^seed is None: "):
        sample(LOGITS, [], 0, Sampling())


def test_log_probabilities() -> None:
    assert log_softmax([0.0, 0.0, -np.inf, 1000.0]).tolist() == [-1000, -1000, -np.inf, 0]
    own, top = top_logprobs(LOGITS, 4, 3)
    total = log(np.exp(LOGITS).sum())
    assert own == pytest.approx(-1 - total)
    assert [i for i, _ in top] == [1, 3, 2]
    assert [v for _, v in top] == pytest.approx([2 - total, 2 - total, 1 - total])
    assert top_logprobs(LOGITS, 0, 0)[1] == []
    assert [i for i, _ in top_logprobs(LOGITS, 0, 99)[1]] == [1, 3, 2, 0, 4]
    many = np.random.default_rng(0).normal(size=9000).round(2)
    assert [i for i, _ in top_logprobs(many, 0, 50)[1]] == sorted(
        range(9000), key=lambda i: (-many[i], i)
    )[:50]
    with pytest.raises(MinigenError, match="NaN"):
        top_logprobs([np.nan, 0.0], 0, 1)
