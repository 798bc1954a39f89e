"""Passes of few new tokens on a GPU by CUDA graphs, each launched by a single call.

Launching the operations of a small model one by one takes the host longer than they take the GPU.

There is one graph for each state and number of keys. Attention reads the first `keys` keys, and a
mask hides those that do not exist yet. `keys` starts at KEYS and doubles as the text grows: it is
at most twice the text, so that a text of n tokens has log2(n / KEYS) graphs. Below KEYS there is
little to save (at GPT-2's size, keys and values of 256 tokens are 4 % of the bytes that a token
reads).

Without a GPU the same passes run without capture, which is how they are tested.
"""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch

from minigen.backends.base import Array
from minigen.backends.quantized import arrays_of
from minigen.backends.switches import read_switch
from minigen.backends.torch.lanes import Lane, captured, lanes_of
from minigen.backends.torch.static_step import Record, StaticStep, UnsupportedError
from minigen.errors import first_line

TOKENS = 16  # new tokens per row; with more, the GPU takes longer than the host anyway
KEYS = 256  # the fewest keys that a graph is made for
COMPILE_AFTER = 64  # passes of a kind on a state: compiling takes longer than most texts
VARIABLE = "MINIGEN_GRAPHS"

log = logging.getLogger("minigen")


def wanted() -> str:
    """The mode that the environment sets: "0", "1" or "compile".

    Raises UsageError for any other.
    """
    advice = (
        "1 (the default), to 0 to do without CUDA graphs, "
        "or to compile, to run long texts through torch.compile first"
    )
    return read_switch(VARIABLE, ("0", "1", "compile"), "1", advice)


def buffer_addresses(state: Any) -> list[int]:
    """The capacity of a state and the addresses of its buffers."""
    return [state.capacity or 0, *(x.data_ptr() for x in arrays_of(list(state.buffers)))]


def keys_for(total: int, capacity: int | None) -> int:
    """How many keys to read if there are `total`; `capacity` is None for a state without keys."""
    if capacity is None:
        return KEYS
    next_power_of_two = 1 << (total - 1).bit_length()
    return min(capacity, max(KEYS, next_power_of_two))


class Kind:
    """The passes of one shape on one state: their count, and a step for each number of keys."""

    def __init__(self) -> None:
        self.count = 0
        self.possible = True
        self.steps: dict[tuple[int, bool], StaticStep] = {}


class StateSteps:
    """The steps of one state by the shape of the pass, and the lane that they are captured on."""

    def __init__(self) -> None:
        self.kinds: dict[Any, Kind] = {}
        self.possible = True
        self.lane: Lane | None = None
        self.addresses: list[int] = []

    def clear(self) -> None:
        """Forgets all graphs: destroying one frees memory that the others of its lane use."""
        for kind in self.kinds.values():
            kind.steps.clear()
        self.lane = None

    def follow(self, state: Any) -> None:
        """Forgets the graphs if the buffers of the state have moved."""
        addresses = buffer_addresses(state)
        if addresses != self.addresses:
            self.clear()
            self.addresses = addresses


class StaticSteps:
    """The steps of all states that are alive.

    Raises UsageError for an unknown mode in the environment.
    """

    def __init__(self, ops: Any) -> None:
        mode = wanted()
        self.ops = ops
        self.possible, self.compiles = mode != "0", mode == "compile"
        self.capturing = ops.device.startswith("cuda")
        self.states: WeakKeyDictionary[Any, StateSteps] = WeakKeyDictionary()

    @cached_property
    def anchor(self) -> tuple[Any, Any]:
        """A tiny graph whose memory pool all other graphs share, and its lane.

        Sharing is safe because graphs run one after another, and the result of each is copied
        before the next. A pool is freed with its last graph; this one lives as long as the model.
        """
        lane = lanes_of(self.ops.device).take(lasting=True)
        graph = lane.new_graph()
        with torch.cuda.stream(lane.stream), captured(graph):
            torch.zeros(1, device=self.ops.device)
        return lane, graph

    def read(
        self, ids: npt.NDArray[Any] | Array, state: Any, at: tuple[int, ...], record: Record
    ) -> Array | None:
        """As `Backend.replay`. The first pass of a shape is not captured: a graph pays off from the
        second on."""
        B, T = ids.shape
        if not self.possible or T > TOKENS or state.length == 0 or not state.buffers:
            return None
        known = self.states.setdefault(state, StateSteps())
        kind = known.kinds.setdefault((B, T, at), Kind())
        kind.count += 1
        if kind.count == 1 or not (kind.possible and known.possible):
            return None
        state.check_room(T)
        known.follow(state)
        try:
            result = self.run(known, kind, ids, state, record)
        except UnsupportedError as reason:
            log.debug("passes of %s tokens are not captured: %s", (B, T), reason)
            kind.possible = False
            return None
        state.passed(T)
        return result

    def run(
        self,
        known: StateSteps,
        kind: Kind,
        ids: npt.NDArray[Any] | Array,
        state: Any,
        record: Record,
    ) -> Array:
        """The logits of a pass, by its graph, which is captured if there is none yet.

        Raises UnsupportedError if the pass cannot be captured.
        """
        B, T = ids.shape
        compiled = self.compiles and kind.count > COMPILE_AFTER
        keys = keys_for(state.length + T, state.capacity)
        step = kind.steps.get((keys, compiled))
        if step is None:
            step = StaticStep(self.ops, (B, T), keys, state)
            kind.steps[keys, compiled] = step
        if isinstance(ids, np.ndarray):
            ids = torch.from_numpy(ids.astype(np.int64))
        step.ids.copy_(ids)
        step.length.fill_(state.length)  # by a kernel: nothing is copied from the host
        if not self.capturing:
            return step.compute(state, record, step.ids, step.length)
        with torch.cuda.device(self.ops.device):
            if step.graph is None:
                self.capture(known, step, state, record, compiled)
            step.check(state)
            step.graph.replay()
            return step.result.clone()  # the next pass overwrites it

    def capture(
        self, known: StateSteps, step: StaticStep, state: Any, record: Record, compiled: bool
    ) -> None:
        """Captures a step. Raises UnsupportedError, after a warning, if that fails."""
        try:
            known.lane = known.lane or lanes_of(self.ops.device).take()
            step.capture(state, record, compiled, known.lane, self.anchor[1].pool())
        except torch.OutOfMemoryError as error:  # there may be enough for another text
            reason = first_line(error)
            log.warning(
                "no memory for a CUDA graph (%s): this text goes on one operation after the other",
                reason,
            )
            known.possible = False
            known.clear()
            raise UnsupportedError(reason) from error
        except RuntimeError as error:  # a driver, debugger or library does not allow it
            reason = first_line(error)
            log.warning(
                "CUDA graphs do not work here (%s): decoding goes one operation after the other",
                reason,
            )
            self.possible = False  # what failed is not tried again
            raise UnsupportedError(reason) from error
