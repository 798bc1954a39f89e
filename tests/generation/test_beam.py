"""Beam search against the plain definition: every continuation tried, the best by the penalised score taken."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import minigen
from minigen.generation.beam import beam_search, length_penalty
from minigen.generation.rows import Row
from minigen.model import Model

WITH_KERNELS = True  # see conftest.py

V, LENGTH, STOP = 5, 4, 2
PROMPT = [1, 3, 0]


@pytest.fixture
def model(make_model: Callable[..., Path], backend: str, device: str) -> Model:
    return minigen.load(
        make_model("llama", vocab_size=V, seed=3), backend=backend, device=device, dtype="float32"
    )


def logprobs(model: Model) -> dict[tuple[int, ...], float]:
    """Of all continuations that end at the first stop id or at the length, read in one batch."""
    whole = list(itertools.product(range(V), repeat=LENGTH))
    logits = model.logits([[*PROMPT, *ids] for ids in whole])[:, len(PROMPT) - 1 : -1].astype(
        np.float64
    )
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    found = {}
    for ids, row in zip(whole, logits, strict=True):
        end = ids.index(STOP) + 1 if STOP in ids else LENGTH
        found[ids[:end]] = float(sum(row[t, token] for t, token in enumerate(ids[:end])))
    return found


def test_a_wide_beam_finds_the_best_of_all(model: Model) -> None:
    each = logprobs(model)
    for alpha in (0.0, 0.6, 2.0):
        scores = {ids: x / length_penalty(len(ids), alpha) for ids, x in each.items()}
        row = Row(list(PROMPT), limit=LENGTH)
        found = beam_search(model.runner, row, beams=V**LENGTH, alpha=alpha, stop_ids={STOP})
        assert len(found) == len(scores)
        assert tuple(found[0].ids) == max(scores, key=lambda ids: scores[ids])
        for hypothesis in found:
            assert hypothesis.score == pytest.approx(scores[tuple(hypothesis.ids)], abs=1e-4)
            assert hypothesis.finish == ("stop" if hypothesis.ids[-1] == STOP else "length")


def test_one_beam_is_greedy(model: Model) -> None:
    row = Row(list(PROMPT), limit=10)
    (greedy,) = model.generate_ids([PROMPT], max_tokens=10, temperature=0, ignore_eos=True)
    assert beam_search(model.runner, row, beams=1, alpha=0.6)[0].ids == greedy


def test_through_the_library(model: Model) -> None:
    row = Row(list(PROMPT), limit=8)
    wanted = beam_search(model.runner, row, beams=4, alpha=0.6)[0].ids
    rows = [PROMPT, [4], PROMPT]
    found = model.generate_ids(rows, max_tokens=8, beams=4, ignore_eos=True)
    assert found[0] == found[2] == wanted
    assert len(found[1]) == 8


def test_length_penalty() -> None:
    assert length_penalty(1, 0.6) == 1
    assert length_penalty(7, 0.6) == pytest.approx(math.pow(2, 0.6))
