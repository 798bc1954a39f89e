"""Passes at positions on the device: how many keys they look at, when they are made anew, and when they are compiled.

That they give the right logits is tested in test_steps.py, with the other way of recording.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigen.errors import UsageError
from minigen.layers.cells import CELLS
from minigen.model import load

pytest.importorskip("torch", reason="torch is not installed")
DEVICE = os.environ.get("MINIGEN_TEST_TORCH_DEVICE", "cpu")
Make = Callable[..., Path]


def runners(folder: Path) -> tuple[Any, Any]:
    """One with static steps, and one without."""
    from minigen.backends.torch.graphs import StaticSteps

    static, plain = (load(folder, "torch", DEVICE, "float32").runner for _ in range(2))
    for runner, steps in ((static, StaticSteps(static.ops)), (plain, None)):
        runner.ops.kernels, runner.ops.static = None, steps  # type: ignore[attr-defined]
    return static, plain


def steps_of(runner: Any, state: Any) -> list[Any]:
    return [
        step
        for kind in runner.ops.static.states[state].kinds.values()
        for step in kind.steps.values()
    ]


@pytest.mark.parametrize("window", [None, 6, 20])
@pytest.mark.parametrize("prompts", [[[3, 1, 4]], [[3, 1, 4], [1, 5, 9, 2, 6], [5]]])
def test_keys_double_with_the_text(
    make_model: Make, monkeypatch: pytest.MonkeyPatch, window: int | None, prompts: list[list[int]]
) -> None:
    from minigen.backends.torch import graphs as torch_graphs

    monkeypatch.setattr(torch_graphs, "KEYS", 8)
    changes = {} if window is None else {"model_type": "mistral", "sliding_window": window}
    found, tokens = [], np.random.default_rng(0).integers(0, 256, (len(prompts), 42))
    for runner in runners(make_model("llama", **changes)):
        logits, state = runner.prefill(prompts, 50)
        logits = [runner.read(tokens[:, at : at + T], state, range(T)) for at, T in blocks(42)]
        found.append(np.concatenate([runner.ops.numpy(x) for x in logits], axis=1))
        if runner.ops.static is not None:
            assert sorted({step.ops.keys for step in steps_of(runner, state)}) == [8, 16, 32, 50]
    assert np.abs(found[0] - found[1]).max() < 1e-5 * np.abs(found[1]).max()


def blocks(total: int) -> list[tuple[int, int]]:
    """(first token, how many): single ones, and some of several."""
    sizes = [3 if i in (4, 5, 12, 13, 20) else 1 for i in range(total)]
    ends = np.cumsum(sizes)
    return [(int(end) - T, T) for end, T in zip(ends, sizes, strict=True) if end <= total]


def test_a_step_is_made_anew_where_the_buffers_moved(make_model: Make) -> None:
    runner, _ = runners(make_model("gpt2"))
    _, state = runner.prefill([[1, 2, 3]], 20)
    for token in (4, 5, 6):
        runner.decode([token], state)
    (first,) = steps_of(runner, state)
    state.rewind(4)
    runner.decode([7], state)
    assert steps_of(runner, state) == [first]
    state.reserve(runner.ops, 40)
    runner.decode([8], state)
    assert first not in [step for step in steps_of(runner, state) if step.ops.keys == 40]
    assert state.length == 6
    other = state.fork(runner.ops, 1)
    runner.decode([9], other)
    assert steps_of(runner, other) == []  # the first pass of a state goes op after op
    state.contents = {key: x.clone() for key, x in state.contents.items()}
    (before,) = [step for step in steps_of(runner, state) if step.ops.keys == 40]
    runner.decode([9], state)
    assert before not in steps_of(runner, state)


@pytest.mark.parametrize("cell", CELLS)
def test_a_recurrent_state_is_captured(make_model: Make, cell: str) -> None:
    """What a pass overwrites lies where it lay, so one step serves texts of any length."""
    results = []
    for runner in runners(make_model("lstm", model_type=f"{cell}_lm")):
        _, state = runner.prefill([[1, 2, 3], [4]], 20)
        results.append([runner.ops.numpy(runner.decode([5, 6], state)) for _ in range(4)])
        assert state.length == 7
        if runner.ops.static is not None:
            assert len(steps_of(runner, state)) == 1
    assert np.allclose(*results, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_padding_is_not_captured(make_model: Make, cell: str) -> None:
    """A recorded pass takes in every token; a recurrence must skip those that pad a row on the left."""
    results = []
    for runner in runners(make_model("lstm", model_type=f"{cell}_lm")):
        state = runner.architecture.new_state(runner.ops, 2, 20, np.array([0, 5]))
        ids = np.array([[1, 2, 3, 4, 5, 6, 7, 8, 9], [0, 0, 0, 0, 0, 6, 7, 8, 9]])
        results.append(
            [runner.ops.numpy(runner.decode(column, state)).copy() for column in ids.T.tolist()]
        )
    assert np.allclose(*results, atol=1e-6)


def test_a_full_cache_is_refused(make_model: Make) -> None:
    from minigen.errors import ContextError

    runner, _ = runners(make_model("gpt2"))
    _, state = runner.prefill([[1, 2, 3]], 5)
    for token in (4, 5):
        runner.decode([token], state)
    with pytest.raises(
        ContextError, match="1 more tokens do not fit after 5: the state has room for 5"
    ):
        runner.decode([6], state)
    assert state.length == 5


def test_long_passes_go_op_after_op(make_model: Make) -> None:
    from minigen.backends.torch.graphs import TOKENS

    runner, _ = runners(make_model("gpt2"))
    _, state = runner.prefill([[1, 2, 3]], 60)
    for _ in range(2):
        runner.read(np.ones((1, TOKENS + 1), np.int64), state)
    assert state not in runner.ops.static.states


def test_a_long_run_is_compiled_where_it_is_asked_for(
    make_model: Make, monkeypatch: pytest.MonkeyPatch, trace_passes: Callable[[Any], list[bool]]
) -> None:
    from minigen.backends.torch import graphs as torch_graphs

    monkeypatch.setattr(torch_graphs, "COMPILE_AFTER", 4)
    monkeypatch.setenv("MINIGEN_GRAPHS", "compile")
    static, plain = runners(make_model("llama"))
    made, found = trace_passes(static.ops.static), []
    for runner in (static, plain):
        _, state = runner.prefill([[1, 2, 3]], 60)
        found.append(
            np.concatenate([runner.ops.numpy(runner.decode([token], state)) for token in range(9)])
        )
    assert np.abs(found[0] - found[1]).max() < 1e-5 * np.abs(found[1]).max()
    assert made == [False, True]


def test_where_graphs_do_not_work(
    make_model: Make,
    monkeypatch: pytest.MonkeyPatch,
    trace_passes: Callable[[Any], list[bool]],
    caplog: Any,
) -> None:
    """It is said once, and decoding goes on without."""
    from minigen.backends.torch.static_step import StaticStep

    def capture(*_: Any) -> None:
        raise RuntimeError("operation not permitted\nmore")

    static, plain = runners(make_model("gpt2"))
    trace_passes(static.ops.static)
    monkeypatch.setattr(StaticStep, "capture", capture)
    found = []
    for runner in (static, plain):
        _, state = runner.prefill([[1, 2, 3]], 60)
        found.append(
            np.concatenate([runner.ops.numpy(runner.decode([token], state)) for token in range(5)])
        )
        assert state.length == 8
    assert np.array_equal(*found)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "CUDA graphs do not work here (operation not permitted): decoding goes one operation after the other"
    ]


def test_what_the_environment_says(make_model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from minigen.backends.torch.graphs import wanted

    assert wanted() == "1"
    monkeypatch.setenv("MINIGEN_GRAPHS", "yes")
    with pytest.raises(UsageError, match="MINIGEN_GRAPHS is 'yes': set it to 1"):
        wanted()
    monkeypatch.setenv("MINIGEN_GRAPHS", "0")
    runner, _ = runners(make_model("gpt2"))
    _, state = runner.prefill([[1, 2, 3]], 60)
    for token in range(3):
        runner.decode([token], state)
    assert state not in runner.ops.static.states
