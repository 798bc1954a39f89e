"""What torch.cuda offers to capture graphs, on a CPU: streams, and graphs that do again what was done while they were
captured, in the same memory.

As torch does, it hands out 32 streams in turn, and frees the workspaces of a stream when a graph that was captured
there is destroyed. A graph that is replayed after that has failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

STREAMS = 32


class Stream:
    """One of torch's streams, which are told apart by their address."""

    def __init__(self, number: int) -> None:
        self.cuda_stream = number

    def wait_stream(self, other: Stream) -> None:
        pass


class Tape(TorchDispatchMode):
    """Writes down every operation, or fails at the first."""

    def __init__(self, failure: Exception | None) -> None:
        super().__init__()
        self.failure = failure
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if self.failure is not None:
            raise self.failure
        found = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, found))
        return found

    def run(self) -> None:
        """Does it again. What was a new array then is overwritten; a view of it sees the new numbers by itself."""
        for function, args, kwargs, before in self.calls:
            now = function(*args, **kwargs)
            for old, new in zip(tree_leaves(before), tree_leaves(now), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class FakeCuda:
    """The streams, their workspaces, and how many graphs are alive."""

    def __init__(self) -> None:
        self.default = self.current = Stream(0)
        self.handed_out = 0
        self.workspaces: dict[int, object] = {}
        self.graphs: int = 0
        self.failure: Exception | None = None  # of the next captures
        fake = self

        class Graph:
            def __init__(self) -> None:
                self.tape: Tape | None = None
                self.captured = False
                fake.graphs += 1

            def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
                assert fake.current is not fake.default
                self.stream = fake.current.cuda_stream
                self.workspace = fake.workspaces.setdefault(self.stream, object())
                self.tape = Tape(fake.failure)
                self.tape.__enter__()

            def capture_end(self) -> None:
                assert self.tape is not None
                self.tape.__exit__(None, None, None)
                if fake.failure is not None:
                    raise RuntimeError("operation failed due to a previous error during capture")
                self.captured = True

            def pool(self) -> tuple[int, int]:
                assert self.captured
                return (0, 1)

            def replay(self) -> None:
                assert self.captured
                assert fake.workspaces.get(self.stream) is self.workspace, (
                    "a graph writes to freed memory"
                )
                assert self.tape is not None
                self.tape.run()

            def __del__(self) -> None:
                fake.graphs -= 1
                if self.captured:
                    fake.workspaces.pop(self.stream, None)

        self.graph_class = Graph

    def new_stream(self, device: str) -> Stream:
        self.handed_out += 1
        return Stream(1 + (self.handed_out - 1) % STREAMS)

    @contextmanager
    def use(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "CUDAGraph", self.graph_class)
        monkeypatch.setattr(torch.cuda, "Stream", self.new_stream)
        monkeypatch.setattr(torch.cuda, "stream", self.use)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: self.current)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
        monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
