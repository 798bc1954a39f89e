"""The settings: what is refused and how, flat names, and what counts as switched on."""

import pickle
from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from minigen.errors import UsageError, shown
from minigen.sampling import SETTINGS, Cuts, Penalties, Sampling

RANGES = {
    "temperature": ([0, 0.5, 100], [-1, -0.001], "a number >= 0"),
    "top_k": ([0, 1, 10**6], [-1, 1.0, 0.5], "a whole number >= 0"),
    "top_p": ([0.001, 1], [0, -0.1, 1.001], "a number > 0 and <= 1"),
    "min_p": ([0, 1], [-0.1, 1.001], "a number from 0 to 1"),
    "typical_p": ([0.001, 1], [0, 1.001], "a number > 0 and <= 1"),
    "epsilon_cutoff": ([0, 0.999], [-0.1, 1], "a number >= 0 and < 1"),
    "eta_cutoff": ([0, 0.999], [-0.1, 1], "a number >= 0 and < 1"),
    "repetition_penalty": ([0.1, 2], [0, -1], "a number > 0"),
    "presence_penalty": ([-2, 0, 2], [], "a finite number"),
    "frequency_penalty": ([-2, 0, 2], [], "a finite number"),
    "no_repeat_ngram_size": ([0, 3], [-1, 2.0], "a whole number >= 0"),
    "seed": ([0, 2**64 - 1], [-1, 2**64, 1.0], "a whole number >= 0 and < 2**64"),
}


@pytest.mark.parametrize("name", RANGES)
def test_each_setting_has_its_range(name: str) -> None:
    good, bad, wanted = RANGES[name]
    for value in good:
        assert Sampling.of(**{name: value}).flat()[name] == value
    for value in [*bad, float("nan"), float("inf"), True, "0.5", None, [1], 10**400]:
        if (name == "seed" and value is None) or (
            value == 10**400 and wanted == "a whole number >= 0"
        ):
            continue
        with pytest.raises(UsageError) as error:
            Sampling.of(**{name: value})
        assert str(error.value) == f"{name} is {shown(value)}: it must be {wanted}"


@pytest.mark.parametrize(
    ("bias", "message"),
    [
        ({-1: 1.0}, "logit_bias has the key -1: it must be a token id, a whole number >= 0"),
        ({"5": 1.0}, "logit_bias has the key '5': it must be a token id, a whole number >= 0"),
        ({True: 1.0}, "logit_bias has the key True: it must be a token id, a whole number >= 0"),
        ({5: float("nan")}, "logit_bias of token 5 is nan: it must be a finite number"),
        ({5: float("-inf")}, "logit_bias of token 5 is -inf: it must be a finite number"),
        ({5: "1"}, "logit_bias of token 5 is '1': it must be a finite number"),
        ([(5, 1.0)], "logit_bias is [(5, 1.0)]: it must map token ids to numbers"),
    ],
)
def test_a_wrong_logit_bias_is_refused(bias: Any, message: str) -> None:
    with pytest.raises(UsageError) as error:
        Sampling.of(logit_bias=bias)
    assert str(error.value) == message


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"^xyz is not a sampling setting: there are repetition_penalty, .*, seed$"
    ):
        Sampling.of(xyz=0.9)
    with pytest.raises(
        UsageError, match=r"^top_q is not a sampling setting: did you mean top_p\?$"
    ):
        Sampling.of(top_q=0.9)


def test_flat_names_reach_the_groups_and_come_back() -> None:
    sampling = Sampling.of(
        temperature=0.5, top_p=0.9, repetition_penalty=1.1, logit_bias={3: -1}, seed=4
    )
    assert sampling == Sampling(
        0.5, Cuts(top_p=0.9), Penalties(repetition_penalty=1.1, logit_bias={3: -1.0}), 4
    )
    assert tuple(sampling.flat()) == SETTINGS
    assert Sampling.of(**sampling.flat()) == sampling
    assert sampling.replace(top_p=1.0, top_k=2).flat() == {
        **sampling.flat(),
        "top_p": 1.0,
        "top_k": 2,
    }
    assert sampling.active == {"temperature", "top_p", "repetition_penalty", "logit_bias", "seed"}
    assert Sampling().active == frozenset()


def test_it_is_a_value() -> None:
    bias = {3: 1.0}
    sampling = Sampling.of(temperature=np.float32(0.5), top_k=np.int64(3), logit_bias=bias)
    bias[4] = 1.0  # the caller's mapping is copied
    assert sampling.penalties.logit_bias == {3: 1.0}
    assert type(sampling.temperature) is float
    assert type(sampling.cuts.top_k) is int
    assert hash(sampling) == hash(sampling.replace())
    assert pickle.loads(pickle.dumps(sampling)) == deepcopy(sampling) == sampling
    with pytest.raises(AttributeError):
        sampling.temperature = 1.0  # type: ignore[misc]


def test_a_missing_seed_is_drawn_once() -> None:
    assert Sampling.of(seed=0).seeded().seed == 0
    first, second = Sampling.of(top_k=3).seeded(), Sampling.of(top_k=3).seeded()
    assert first.seed is not None
    assert 0 <= first.seed < 2**32
    assert first.cuts == second.cuts == Cuts(top_k=3)
    assert first.seed != second.seed  # one chance in 2**32


def test_greedy_is_what_a_backend_can_do_alone() -> None:
    assert not Sampling().is_greedy
    assert Sampling.of(temperature=0).is_greedy
    assert Sampling.of(temperature=0, top_k=5, top_p=0.5, min_p=0.1, seed=1).is_greedy
    for name in ("repetition_penalty", "presence_penalty", "frequency_penalty"):
        assert not Sampling.of(**{"temperature": 0, name: 1.5}).is_greedy
    assert not Sampling.of(temperature=0, no_repeat_ngram_size=2).is_greedy
    assert not Sampling.of(temperature=0, logit_bias={1: 1}).is_greedy
