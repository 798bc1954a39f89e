"""Drawing from a few of the best logits: what the whole row gives to the bit, or None."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigen
from minigen.sampling import Sampling, candidates_needed, narrow, sample, sample_best

SETTINGS: list[dict[str, Any]] = [
    {"top_k": 40},
    {"temperature": 0.7, "top_k": 40},
    {"temperature": 0.7, "top_k": 40, "top_p": 0.9, "min_p": 0.02},
    {"temperature": 0.8, "top_p": 0.95},
    {"top_p": 0.6},
    {"temperature": 0.9, "top_p": 0.9, "typical_p": 0.8},
    {"temperature": 1.3, "min_p": 0.05},
    {"min_p": 0.3, "epsilon_cutoff": 0.01},
    {"temperature": 1e-6, "top_k": 5},
]
WHOLE_ROW: list[dict[str, Any]] = [
    {},
    {"temperature": 0},
    {"temperature": 0.5},
    {"typical_p": 0.9, "min_p": 0.0},
    {"top_k": 40, "repetition_penalty": 1.1},
    {"top_k": 40, "logit_bias": {3: 1.0}},
    {"epsilon_cutoff": 0.01},
]


def rows(seed: int, bits: int) -> np.ndarray[Any, Any]:
    """A row like a model's: a few high logits and a long tail; of few bits, as in bfloat16, it has ties."""
    rng = np.random.default_rng(seed)
    row = (rng.standard_normal(5000) * 2 - 8 + 14 * rng.random(5000) ** 40).astype(np.float32)
    mantissa, exponent = np.frexp(row)
    return np.ldexp(np.round(mantissa * 2**bits) / 2**bits, exponent).astype(np.float32)


def best_of(row: np.ndarray[Any, Any], sampling: Sampling, seed: int = 0) -> tuple[Any, Any, float]:
    """What a device brings: its sum is off by what float32 makes of it."""
    count = candidates_needed(sampling)
    assert count is not None
    ids = np.argpartition(-row, count)[:count]
    np.random.default_rng(seed).shuffle(ids)
    with np.errstate(over="ignore"):
        scaled = (row - row.max()) * np.float32(1 / sampling.temperature)
    return row[ids], ids, float(np.log(np.exp(scaled).sum()) + np.float32(1e-6))


@pytest.mark.parametrize("bits", [8, 24])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_the_same_token(setting: dict[str, Any], bits: int) -> None:
    missed = 0
    for seed in range(60):
        row, sampling = rows(seed, bits), Sampling.of(**setting, seed=seed)
        tokens = list(range(seed % 7 + 1))
        token = sample_best(*best_of(row, sampling, seed), len(tokens), sampling, seed % 3)
        missed += token is None
        assert token is None or token == sample(row, tokens, 1, sampling, seed % 3)
    assert missed <= 20


def test_what_wants_the_whole_row() -> None:
    for setting in WHOLE_ROW:
        assert candidates_needed(Sampling.of(**setting)) is None
    assert candidates_needed(Sampling.of(top_k=7)) == 7 + narrow.SPARE


def test_what_the_best_do_not_tell() -> None:
    """Ties that reach beyond them, a sum at the edge of the mass or short of it, and what is no number."""
    tied = np.where(np.arange(5000) < 200, np.float32(3), np.float32(0))
    for setting in ({"top_k": 40}, {"min_p": 0.1}, {"top_p": 0.9}):
        sampling = Sampling.of(**setting, seed=1)
        if setting == {"min_p": 0.1}:
            assert sample_best(*best_of(tied, sampling), 1, sampling) is not None
            tied_all = np.zeros(5000, np.float32)
            assert sample_best(*best_of(tied_all, sampling), 1, sampling) is None
        else:
            assert sample_best(*best_of(tied, sampling), 1, sampling) is None
    half = np.full(5000, -50, np.float32)
    half[[7, 9]] = 0  # each has half of the mass
    for mass, told in ((0.5, False), (0.50005, False), (0.51, True), (0.49, True)):
        sampling = Sampling.of(top_p=mass, seed=1)
        assert (sample_best(*best_of(half, sampling), 1, sampling) is not None) == told
    sampling = Sampling.of(top_p=0.5, seed=1)
    values, ids, _ = best_of(half, sampling)
    for total in (float("nan"), float("inf"), -float("inf")):
        assert sample_best(values, ids, total, 1, sampling) is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "setting", [{"top_k": 30}, {"temperature": 0.5, "top_p": 0.8}, {"min_p": 0.2}], ids=str
)
def test_the_same_text(
    tiny: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    device: str,
    setting: dict[str, Any],
    dtype: str,
) -> None:
    """Through the loop, on a backend that is taken for a GPU, where the host draws; few rows go whole to it."""
    from minigen.generation import choosing

    monkeypatch.setenv("MINIGEN_DRAW", "host")
    monkeypatch.setattr(narrow, "MOST", 60)
    monkeypatch.setattr(narrow, "SPARE", 20)
    model = minigen.load(tiny("llama"), backend=backend, device=device, dtype=dtype)
    ops: Any = model.runner.ops
    found, whole = [], []
    for accelerated in (False, True):
        drawn: list[int] = []

        def count(*args: Any, drawn: list[int] = drawn) -> int:
            drawn.append(1)
            return sample(*args)

        monkeypatch.setattr(ops, "accelerated", accelerated)
        monkeypatch.setattr(choosing, "sample", count)
        found.append(
            model.generate_ids(
                [[1, 2, 3], [7]],
                max_tokens=20,
                seed=4,
                **{"temperature": 1.0, "top_p": 1.0, **setting},
            )
        )
        whole.append(len(drawn))
    assert found[0] == found[1]
    assert whole[0] == sum(map(len, found[0]))
    assert whole[1] < whole[0] / 2


def test_nan_is_said_as_ever(
    make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    from minigen.errors import MinigenError

    model = minigen.load(make_model("llama"), backend=backend, device="cpu", dtype="float32")
    monkeypatch.setattr(model.runner.ops, "accelerated", True)
    model.runner.params["norm"]["weight"] = model.runner.params["norm"]["weight"] * float("nan")
    with pytest.raises(MinigenError, match="the model produced NaN as a logit"):
        model.generate_ids([[1, 2]], max_tokens=4, top_k=5, seed=1)
