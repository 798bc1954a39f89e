"""Where CUDA graphs are captured: on a separate stream for each state.

The products of a graph write to workspaces that torch keeps per stream. Destroying a graph frees
the workspaces of its stream (`CUDAGraph::reset`), even if other graphs were captured there: these
would then write to memory that something else uses. So all graphs of a stream are destroyed
together.
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
    """A stream and all graphs that were captured on it, which are destroyed with the lane.

    That happens when no state refers to it any more. A `lasting` lane lives as long as its model.
    """

    def __init__(self, stream: Any, lasting: bool) -> None:
        self.stream, self.lasting = stream, lasting
        self.graphs: list[Any] = []

    def new_graph(self) -> Any:
        self.graphs.append(torch.cuda.CUDAGraph())
        return self.graphs[-1]


class Lanes:
    """The lanes of one device, for all models of this process.

    Torch has 32 streams and hands them out in turn. So a free stream is used again before another
    is requested; if more states are alive than there are streams, some share a lane.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.streams: list[Any] = []
        self.held: WeakValueDictionary[int, Lane] = WeakValueDictionary()  # by the stream's address
        self.lock = Lock()

    def take(self, lasting: bool = False) -> Lane:
        """A new lane on a free stream, or one that is shared if no stream is free."""
        with self.lock:
            stream = self.free_stream()
            if stream is None:
                stream = torch.cuda.Stream(self.device)
                if stream.cuda_stream in self.held:
                    return self.least_used()
                self.streams.append(stream)
            lane = Lane(stream, lasting)
            self.held[stream.cuda_stream] = lane
            return lane

    def free_stream(self) -> Any:
        """A known stream without a lane; None if there is none."""
        for stream in self.streams:
            if stream.cuda_stream not in self.held:
                return stream
        return None

    def least_used(self) -> Lane:
        """The lane with the fewest graphs; a lasting one only if all are."""
        lanes = list(self.held.values())
        passing = [lane for lane in lanes if not lane.lasting]
        return min(passing or lanes, key=lambda lane: len(lane.graphs))


@cache
def lanes_of(device: str) -> Lanes:
    return Lanes(device)


@contextmanager
def captured(graph: Any, pool: Any = None) -> Iterator[None]:
    """As torch.cuda.graph, but without collecting garbage first, which takes longer than a short
    text.

    If the captured code fails, its own error is raised, not the one of ending a failed capture.
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
