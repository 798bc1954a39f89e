"""What tests of recorded passes share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture
def trace_passes(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[bool]]:
    """trace_passes(static_steps): in place of each CUDA graph the operations of one pass as torch.compile would get
    them, which know as little of any other position. It gives a list of which of them were to be compiled.
    """
    import torch

    from minigen.backends.torch_graphs import StaticStep, compile_pass

    made: list[bool] = []

    def capture(step: Any, state: Any, record: Any, compiled: bool, among: Any) -> None:
        made.append(compiled)
        step.compute(state, record, step.ids, step.length)
        run = compile_pass(lambda ids, length: step.compute(state, record, ids, length), step.ids, step.length)
        step.result = torch.empty_like(run(step.ids, step.length))
        step.graph = SimpleNamespace(replay=lambda: step.result.copy_(run(step.ids, step.length)))

    def use(static: Any) -> list[bool]:
        static.capturing = True
        monkeypatch.setattr(torch, "compile", lambda graph, **settings: graph)
        monkeypatch.setattr(StaticStep, "capture", capture)
        monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
        return made

    return use
