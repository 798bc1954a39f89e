"""Tokens drawn on the device while the host goes on: the same as the host's, or taken back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigen
from minigen.backends import get_backend
from minigen.backends.base import DTYPES
from minigen.errors import MinigenError, UsageError
from minigen.generation import drawing
from minigen.generation.choosing import Choice
from minigen.generation.drawing import Uniforms
from minigen.generation.loop import generate
from minigen.generation.options import Options
from minigen.generation.reader import Runner
from minigen.generation.rows import Row, Timing
from minigen.sampling import candidates_needed, sample
from minigen.sampling.uniforms import uniform

Tiny = Callable[[str], Path]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 1, "top_p": 1},
    {"temperature": 1.7, "top_p": 1},
    {"top_k": 7},
    {"top_k": 40, "top_p": 0.9, "min_p": 0.05},
    {"min_p": 0.02, "top_p": 1},
    {"temperature": 0.3, "top_p": 0.5},
    {"temperature": 1e-9},
    {"temperature": 1.3, "top_k": 5000, "top_p": 1},
]
HOST_ONLY: list[dict[str, Any]] = [
    {"repetition_penalty": 1.2},
    {"frequency_penalty": 0.4},
    {"logit_bias": {3: 2.0}},
    {"typical_p": 0.8},
    {"eta_cutoff": 0.01},
    {"logprobs": 2},
]
PROMPTS = [[1, 2, 3], [9] * 11, [4], [1, 2, 3]]


class Counting:
    """A Reader that counts the passes of one token."""

    ahead = True

    def __init__(self, runner: Runner) -> None:
        self.runner, self.ops = runner, runner.ops
        self.passes: list[Any] = []

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> Any:
        return self.runner.prefill(prompts, capacity)

    def read(self, ids: Any, state: Any, at: Sequence[int] = (-1,)) -> Any:
        self.passes.append(ids)
        return self.runner.read(ids, state, at)


@pytest.fixture(params=["gpt2", "llama", "lstm", "lfm2"])
def runner(request: pytest.FixtureRequest, tiny: Tiny, backend: str, device: str) -> Counting:
    return Counting(
        minigen.load(tiny(request.param), backend=backend, device=device, dtype="float32").runner
    )


def said(
    runner: Any, asynchronous: bool, prompts: list[list[int]], end: Any = None, **settings: Any
) -> Any:
    """What the rows say, step by step, and how many passes that took."""
    rows, before = (
        [Row(list(prompt), i) for i, prompt in enumerate(prompts)],
        runner.ops.asynchronous,
    )
    runner.ops.asynchronous = asynchronous
    runner.passes.clear()
    try:
        steps = []
        for live in generate(runner, rows, Options.of(**settings), timing=Timing()):
            steps.append([(row.sequence, row.ids[-1]) for row in live])
            for row in live:
                row.finish = row.finish or (end and end(row))
    finally:
        runner.ops.asynchronous = before
    return steps, [row.finish for row in rows], len(runner.passes)


def guesses(
    backend: str, device: str, dtype: str, size: int, scale: float, **settings: Any
) -> tuple[Any, Any]:
    """What the device draws for rows of logits, and what the host does."""
    ops = get_backend(backend, device, dtype)
    count = 60
    rng = np.random.default_rng(size)
    logits = ops.asarray(scale * rng.standard_normal((count, 1, size)).astype(np.float32))
    options = Options.of(seed=5, **settings)
    rows = [Row([0] * (i % 7 + 1), i, 10) for i in range(count)]
    choice = Choice(ops, logits, options, Uniforms(ops, rows, options.sampling).at(0))
    drawn = ops.numpy(choice.ids)
    found = [token for _, token in choice.read(rows)]
    whole = ops.numpy(logits)[:, 0]
    host = [
        sample(row_logits, row.tokens, len(row.prompt), options.sampling, row.sequence)
        for row_logits, row in zip(whole, rows, strict=True)
    ]
    assert found == host
    assert choice.right == (drawn.tolist() == host)
    return drawn, np.array(host)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_device_draws_what_the_host_does(
    backend: str, device: str, dtype: str, settings: dict[str, Any]
) -> None:
    """Peaked and flatter rows, vocabularies below and above what is brought to the host; ties in 16 bits."""
    for size, scale in ((300, 2.0), (300, 9.0), (3000, 4.0)):
        drawn, host = guesses(backend, device, dtype, size, scale, **settings)
        assert (drawn < size).all()
        assert (drawn != host).sum() <= (0 if dtype == "float32" else 2)


def test_uniforms_are_those_of_the_host(
    backend: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent a few at a time, and asked for twice where a step is taken back."""
    monkeypatch.setattr(drawing, "STEPS", 4)
    ops = get_backend(backend, device, "bfloat16")
    rows = [Row([1, 2], 0, 30), Row([1], 7, 30)]
    numbers = Uniforms(ops, rows, Options.of(seed=3).sampling)
    for step in (0, 1, 1, 2, 3, 4, 4, 5, 9, 10):
        want = [uniform(3, row.sequence, len(row.tokens) + step) for row in rows]
        assert np.abs(ops.numpy(numbers.at(step)) - want).max() <= 2**-24


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_same_rows_ahead(runner: Counting, settings: dict[str, Any]) -> None:
    """Rows that end early and leave, the last token, two seeds: and no pass more than the end needs."""

    def end(row: Row) -> str | None:
        return "stop" if len(row.ids) == 3 + 2 * row.sequence else None

    plain = said(runner, False, PROMPTS, end, max_tokens=12, seed=1, **settings)
    ahead = said(runner, True, PROMPTS, end, max_tokens=12, seed=1, **settings)
    assert plain[:2] == ahead[:2]
    plain = said(runner, False, PROMPTS, max_tokens=12, seed=2, **settings)
    ahead = said(runner, True, PROMPTS, max_tokens=12, seed=2, **settings)
    assert plain == ahead
    assert all(not isinstance(ids, np.ndarray) for ids in runner.passes)  # none waited for the host


@pytest.mark.parametrize("settings", SETTINGS[:4], ids=str)
def test_a_wrong_guess_is_taken_back(
    runner: Counting, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another pass, after which everything is as if the device had been right."""
    plain = said(runner, False, PROMPTS, max_tokens=12, seed=1, **settings)
    index_of_share = drawing.index_of_share
    asked: list[int] = []

    def wrong(ops: Any, parts: Any, uniform: Any) -> Any:
        index = index_of_share(ops, parts, uniform)
        asked.append(0)
        return index * 0 if len(asked) % 3 == 0 else index

    monkeypatch.setattr(drawing, "index_of_share", wrong)
    ahead = said(runner, True, PROMPTS, max_tokens=12, seed=1, **settings)
    assert plain[:2] == ahead[:2]
    assert ahead[2] > plain[2]


@pytest.mark.parametrize("settings", HOST_ONLY, ids=str)
def test_what_the_host_draws(runner: Counting, settings: dict[str, Any]) -> None:
    plain = said(runner, False, PROMPTS, max_tokens=8, seed=1, **settings)
    assert plain == said(runner, True, PROMPTS, max_tokens=8, seed=1, **settings)
    assert all(isinstance(ids, np.ndarray) for ids in runner.passes)


def test_the_switch(runner: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGEN_DRAW", "host")
    plain = said(runner, False, PROMPTS, max_tokens=8, seed=1)
    assert plain == said(runner, True, PROMPTS, max_tokens=8, seed=1)
    assert all(isinstance(ids, np.ndarray) for ids in runner.passes)
    monkeypatch.setenv("MINIGEN_DRAW", "gpu")
    with pytest.raises(UsageError, match="MINIGEN_DRAW is 'gpu': set it to device"):
        said(runner, True, PROMPTS, max_tokens=8, seed=1)


def test_nothing_is_waited_for_before_the_next_step(
    runner: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order in which things are asked for: a step, and only then the tokens of the one before."""
    events: list[str] = []
    fetch, read, numpy = runner.ops.fetch, Counting.read, runner.ops.numpy

    def spy_fetch(*arrays: Any) -> Any:
        wait = fetch(*arrays)

        def waited() -> Any:
            events.append("read")
            with monkeypatch.context() as patch:
                patch.setattr(runner.ops, "numpy", numpy)
                return wait()

        return waited

    def spy_read(self: Counting, ids: Any, state: Any, at: Sequence[int] = (-1,)) -> Any:
        events.append("step")
        return read(self, ids, state, at)

    def spy_numpy(x: Any) -> Any:
        events.append("numpy")
        return numpy(x)

    with monkeypatch.context() as patch:
        patch.setattr(
            runner.ops, "kernels", None, raising=False
        )  # those of a CPU want the ids on the host
        patch.setattr(runner.ops, "fetch", spy_fetch)
        patch.setattr(Counting, "read", spy_read)
        patch.setattr(runner.ops, "numpy", spy_numpy)
        said(runner, True, PROMPTS, max_tokens=5, seed=1)
    assert events == [*["step", "read"] * 4, "read"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_said(backend: str, device: str, value: float) -> None:
    """Where one logit is NaN or infinite, by every way to choose; -inf is one that is never drawn."""
    ops: Any = get_backend(backend, device, "float32")
    row = np.zeros((1, 1, 700), np.float32)
    row[0, 0, 300] = value
    rows = [Row([1], 0, 9)]
    for settings in ({}, {"temperature": 1, "top_p": 1}, {"top_k": 3}):
        options = Options.of(seed=2, **settings)
        choice = Choice(ops, ops.asarray(row), options, Uniforms(ops, rows, options.sampling).at(0))
        assert 0 <= int(ops.numpy(choice.ids)[0]) < 700
        if value < 0:
            assert choice.read(rows)[0][1] != 300
            continue
        with pytest.raises(MinigenError, match=r"the model produced (NaN|\+inf) as a logit"):
            choice.read(rows)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_draw_needs_no_number_on_the_host(settings: dict[str, Any]) -> None:
    """On tensors that hold no numbers, as each look at one would fail."""
    torch: Any = pytest.importorskip("torch", reason="torch is not installed")
    ops = get_backend("torch", "cpu", "float32")
    sampling = Options.of(seed=1, **settings).sampling
    logits, some = (torch.empty(3, size, device="meta") for size in (2000, 512))
    total, numbers = torch.empty(3, device="meta"), torch.empty(3, device="meta")
    if candidates_needed(sampling) is None:
        drawn = drawing.drawn_from_all(ops, logits, total, sampling, numbers)
    else:
        drawn = drawing.drawn_from_best(ops, some, some.long(), total, sampling, numbers)
    assert drawn.shape == (3,)
    assert drawn.dtype == torch.int64
