"""One pass over new tokens that can be repeated at other positions, and its CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from minigen.backends.base import Array
from minigen.backends.torch.lanes import Lane, captured
from minigen.backends.torch.static import StaticOps

Record = Callable[[Any, Array], Any]  # (ops, ids (B, T)) -> logits; None if that is not possible


class UnsupportedError(Exception):
    """The pass needs something that is not possible with the position on the device."""


class StaticStep:
    """A pass over new tokens (B, T) that follow a state, reading the first `keys` of its keys."""

    def __init__(self, ops: Any, shape: tuple[int, int], keys: int, state: Any) -> None:
        self.ops = StaticOps(ops, shape, keys, state.starts)
        self.ids = torch.zeros(shape, dtype=torch.int64, device=ops.device)
        self.length = torch.zeros((), dtype=torch.int64, device=ops.device)
        self.graph: Any = None
        self.result: Array = None

    def compute(self, state: Any, record: Record, ids: Array, length: Array) -> Array:
        """The pass, one operation after another. Returns the logits of `record`.

        Meanwhile `state.length` is set as if the new tokens were the last of the `keys` keys, so
        that the views of its buffers have the same shape at every position.
        """
        self.ops.begin(ids, length)
        kept = state.length
        state.length = self.ops.keys - self.ops.shape[1]
        try:
            logits = record(self.ops, ids)
        finally:
            state.length = kept
        if logits is None:
            raise UnsupportedError("the architecture does not offer it")
        return logits

    def capture(self, state: Any, record: Record, compiled: bool, lane: Lane, pool: Any) -> None:
        """Captures the graph of the pass. The trial runs before it write what the pass itself will
        write, because they have the same inputs."""

        def compute(ids: Array, length: Array) -> Array:
            return self.compute(state, record, ids, length)

        graph, run, stream = lane.new_graph(), compute, lane.stream
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                run(self.ids, self.length)  # makes constants, and lets libraries allocate memory
                if compiled:
                    run = compile_pass(compute, self.ids, self.length)
                    run(self.ids, self.length)
                with captured(graph, pool):
                    self.result = run(self.ids, self.length)
        finally:  # also after a failure: the pass that replaces it must not overtake a trial
            torch.cuda.current_stream().wait_stream(stream)
        self.graph = graph

    def check(self, state: Any) -> None:
        """Called before each launch: the device would silently read past its tables."""
        first = 0 if state.starts is None else int(state.starts.min())
        assert state.length + self.ops.shape[1] - first <= self.ops.rows


def compile_pass(compute: Callable[..., Array], ids: Array, length: Array) -> Callable[..., Array]:
    """A pass through torch.compile, which is given the operations that ran, not the Python code."""
    from torch.fx.experimental.proxy_tensor import make_fx

    graph = make_fx(compute)(ids, length)
    compiled: Callable[..., Array] = torch.compile(
        graph, mode="max-autotune-no-cudagraphs", dynamic=False
    )
    return compiled
