"""Prompts on a GPU: read by blocks, with the same result as at once. Forced on the CPU, which reads them at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigen
from minigen.generation import reader
from minigen.generation.loop import generate
from minigen.generation.options import Options
from minigen.generation.reader import Runner
from minigen.generation.rows import Row

Tiny = Callable[[str], Path]
BLOCK = 8
LENGTHS = [[1], [8], [9], [30], [30, 3, 17], [5, 26, 26], [16, 24]]


@pytest.fixture(params=["gpt2", "llama", "lstm", "lfm2", "sinks"])
def runner(
    request: pytest.FixtureRequest,
    tiny: Tiny,
    backend: str,
    device: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    monkeypatch.setattr(reader, "BLOCK", BLOCK)
    folder = tiny("llama" if request.param == "sinks" else request.param)
    runner = minigen.load(folder, backend=backend, device=device, dtype="float32").runner
    if request.param == "sinks":
        context = replace(runner.architecture, context=40)  # type: ignore[type-var]
        runner = replace(runner, architecture=context.with_sinks(2))  # type: ignore[attr-defined]
    return runner


def prompts_of(lengths: list[int]) -> list[list[int]]:
    return [
        np.random.default_rng(i).integers(1, 250, length).tolist()
        for i, length in enumerate(lengths)
    ]


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_blocks_give_what_one_pass_gives(
    runner: Any, lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of one length and padded ones, of which a block may be all padding; then steps go on."""
    passes: list[int] = []
    released: list[bool] = []
    read = Runner.read

    def spy(self: Runner, ids: Any, state: Any, at: Any = (-1,)) -> Any:
        passes.append(ids.shape[1])
        return read(self, ids, state, at)

    monkeypatch.setattr(Runner, "read", spy)
    monkeypatch.setattr(runner.ops, "release", lambda: released.append(True))
    prompts, longest, found = prompts_of(lengths), max(lengths), []
    for accelerated in (False, True):
        passes.clear()
        released.clear()
        runner.ops.accelerated = accelerated
        logits, state = runner.prefill(prompts, longest + 4)
        count = -(-longest // BLOCK) if accelerated else 1
        assert len(passes) == count
        assert sum(passes) == longest == state.length
        assert max(passes) <= (BLOCK if accelerated else longest)
        assert len(released) == count - 1
        after = runner.decode([7] * len(lengths), state)
        found.append((runner.ops.numpy(logits), runner.ops.numpy(after)))
    for whole, blocks in zip(*found, strict=True):
        assert np.abs(whole - blocks).max() <= 2e-5


def test_the_text_is_the_same(runner: Any) -> None:
    """Also where the prompt goes past the window of attention sinks, and a block is cut by its end."""
    long = 38 if runner.architecture.context is not None else 60
    found = []
    for accelerated in (False, True):
        runner.ops.accelerated = accelerated
        rows = [Row(prompt) for prompt in prompts_of([long])]
        list(generate(runner, rows, Options.of(temperature=0, max_tokens=10)))
        found.append([row.ids for row in rows])
    assert found[0] == found[1]
