"""What tests of recorded passes share, and those of when the kernels of a CPU start."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Any:
    """torch.cuda on a CPU, as far as graphs need it: see fake_cuda.py."""
    from minigen.backends.torch import lanes as torch_lanes

    spec = importlib.util.spec_from_file_location(
        "fake_cuda", Path(__file__).with_name("fake_cuda.py")
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    fake = module.FakeCuda()
    fake.install(monkeypatch)
    torch_lanes.lanes_of.cache_clear()
    yield fake
    torch_lanes.lanes_of.cache_clear()


@pytest.fixture
def trace_passes(monkeypatch: pytest.MonkeyPatch, fake_cuda: Any) -> Callable[[Any], list[bool]]:
    """trace_passes(static_steps): in place of each CUDA graph the operations of one pass as torch.compile would get
    them, which know as little of any other position. It gives a list of which of them were to be compiled.
    """
    import torch

    from minigen.backends.torch.static_step import StaticStep, compile_pass

    made: list[bool] = []

    def capture(step: Any, state: Any, record: Any, compiled: bool, lane: Any, pool: Any) -> None:
        made.append(compiled)
        step.compute(state, record, step.ids, step.length)
        run = compile_pass(
            lambda ids, length: step.compute(state, record, ids, length), step.ids, step.length
        )
        step.result = torch.empty_like(run(step.ids, step.length))
        step.graph = SimpleNamespace(replay=lambda: step.result.copy_(run(step.ids, step.length)))

    def use(static: Any) -> list[bool]:
        static.capturing = True
        monkeypatch.setattr(torch, "compile", lambda graph, **settings: graph)
        monkeypatch.setattr(StaticStep, "capture", capture)
        return made

    return use


@pytest.fixture
def large_step(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    """large_step(ops, length, size=1024): whether the kernels have started after a pass of a model with such a matrix,
    in a text of `length` tokens so far. There is nothing to record in it.
    """

    def step(ops: Any, length: int, size: int = 1024) -> bool:
        monkeypatch.setitem(vars(ops.kernels), "steps", SimpleNamespace(read=lambda *_: None))
        ops.replay(
            np.zeros((1, 1), np.int64), SimpleNamespace(length=length), (-1,), lambda *_: None
        )
        ops.linear(ops.zeros((1, 1, size)), ops.zeros((size, size)))
        return bool(ops.kernels.started)

    return step
