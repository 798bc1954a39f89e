"""Where CUDA graphs are captured: for each state a stream of its own, and what a capture does when it fails.

The products of a graph write to workspaces that torch keeps for each stream. Destroying a graph frees those of the
stream that it was captured on (`CUDAGraph::reset`), also where other graphs were captured there: these would then write
to memory that belongs to somebody else. So the graphs of a stream go together.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import torch


class Lane:
    """A stream, and all graphs that were captured on it. They are destroyed with the lane, when the last state that
    holds it lets go of it. A `lasting` one is that of a graph which stays as long as its model."""

    def __init__(self, stream: Any, lasting: bool) -> None:
        self.stream, self.lasting = stream, lasting
        self.graphs: list[Any] = []

    def new_graph(self) -> Any:
        self.graphs.append(torch.cuda.CUDAGraph())
        return self.graphs[-1]


class Lanes:
    """The lanes of one device, for all models of this process.

    Torch has 32 streams and hands them out in turn. So a stream that nobody holds is used again before another is asked
    for; where more states are alive than there are streams, some share a lane.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.streams: list[Any] = []
        self.held: WeakValueDictionary[int, Lane] = WeakValueDictionary()  # by the stream's address
        self.lock = Lock()

    def take(self, lasting: bool = False) -> Lane:
        with self.lock:
            stream = next(
                (stream for stream in self.streams if stream.cuda_stream not in self.held), None
            )
            if stream is None:
                stream = torch.cuda.Stream(self.device)
                if stream.cuda_stream in self.held:
                    return self.least_used()
                self.streams.append(stream)
            lane = self.held[stream.cuda_stream] = Lane(stream, lasting)
            return lane

    def least_used(self) -> Lane:
        lanes = list(self.held.values())
        passing = [lane for lane in lanes if not lane.lasting]
        return min(passing or lanes, key=lambda lane: len(lane.graphs))


@cache
def lanes_of(device: str) -> Lanes:
    return Lanes(device)


@contextmanager
def captured(graph: Any, pool: Any = None) -> Iterator[None]:
    """As torch.cuda.graph, but for its collecting garbage first, which takes longer than a short text.

    Where what is captured fails, its error is raised, and not the one of ending a capture that has failed.
    """
    torch.cuda.synchronize()
    graph.capture_begin(pool=pool, capture_error_mode="thread_local")
    try:
        yield
    except BaseException:
        with suppress(RuntimeError):
            graph.capture_end()
        raise
    graph.capture_end()
