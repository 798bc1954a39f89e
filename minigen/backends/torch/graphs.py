"""Passes of few new tokens on a GPU: for a state and a number of keys one CUDA graph, launched by one call each.

Operation by operation, the host takes longer to ask for a step of a small model than the GPU to compute it.

Attention looks at the first `keys` keys, and a mask hides those that are not there yet. `keys` grows with the text by
doubling, from KEYS: it is never more than twice the text, a text of n tokens has log2(n / KEYS) graphs, and below KEYS
there is little to save (at GPT-2's size, keys and values of 256 tokens are 4 % of the bytes that a token reads).

Without a GPU the same passes run uncaptured, which is how they are tested.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
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
from minigen.backends.torch.static import StaticOps
from minigen.errors import first_line

TOKENS = 16  # new ones of a row: beyond, the GPU is busy for longer than the host
KEYS = 256
COMPILE_AFTER = 64  # passes of a kind on a state, as compiling takes longer than most texts
VARIABLE = "MINIGEN_GRAPHS"

Record = Callable[[Any, Array], Any]
log = logging.getLogger("minigen")


def wanted() -> str:
    """What the environment says. Raises UsageError for none of the three."""
    return read_switch(
        VARIABLE,
        ("0", "1", "compile"),
        "1",
        "1 (the default), to 0 to do without CUDA graphs, or to compile, to run long texts through torch.compile first",
    )


class UnsupportedError(Exception):
    """The model does something that cannot be done at a position on the device."""


class StaticStep:
    """The pass of new tokens (B, T) after what a state holds, over the first `keys` places of its buffers."""

    def __init__(self, ops: Any, shape: tuple[int, int], keys: int, state: Any) -> None:
        self.ops = StaticOps(ops, shape, keys, state.starts)
        self.ids = torch.zeros(shape, dtype=torch.int64, device=ops.device)
        self.length = torch.zeros((), dtype=torch.int64, device=ops.device)
        self.graph: Any = None
        self.result: Array = None

    def compute(self, state: Any, record: Record, ids: Array, length: Array) -> Array:
        """The pass, op after op. The state's own length is as if the keys ended with the new tokens, so that the views
        of its buffers have one shape at every position."""
        self.ops.begin(ids, length)
        kept, state.length = state.length, self.ops.keys - self.ops.shape[1]
        try:
            logits = record(self.ops, ids)
        finally:
            state.length = kept
        if logits is None:
            raise UnsupportedError("the architecture does not offer it")
        return logits

    def capture(self, state: Any, record: Record, compiled: bool, lane: Lane, pool: Any) -> None:
        """Makes the graph of the pass, with the inputs as they are: what its trials write is what the pass writes."""

        def compute(ids: Array, length: Array) -> Array:
            return self.compute(state, record, ids, length)

        graph, run, stream = lane.new_graph(), compute, lane.stream
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                run(
                    self.ids, self.length
                )  # makes the constants, and libraries allocate what they need
                if compiled:
                    run = compile_pass(compute, self.ids, self.length)
                    run(self.ids, self.length)
                with captured(graph, pool):
                    self.result = run(self.ids, self.length)
        finally:  # also after a failure: what comes instead must not overtake a trial
            torch.cuda.current_stream().wait_stream(stream)
        self.graph = graph

    def check(self, state: Any) -> None:
        """Before a launch: the device would read past its tables without a word."""
        first = 0 if state.starts is None else int(state.starts.min())
        assert state.length + self.ops.shape[1] - first <= self.ops.rows


def compile_pass(compute: Callable[..., Array], ids: Array, length: Array) -> Callable[..., Array]:
    """A pass through torch.compile, which gets the operations that ran, and none of the Python around them."""
    from torch.fx.experimental.proxy_tensor import make_fx

    graph = make_fx(compute)(ids, length)
    compiled: Callable[..., Array] = torch.compile(
        graph, mode="max-autotune-no-cudagraphs", dynamic=False
    )
    return compiled


def buffer_addresses(state: Any) -> list[int]:
    """Where the buffers of a state lie."""
    return [state.capacity or 0, *(x.data_ptr() for x in arrays_of(list(state.buffers)))]


def keys_for(total: int, capacity: int | None) -> int:
    """How many keys to look at where there are `total`; a state without keys has no capacity."""
    wanted = max(KEYS, 1 << (total - 1).bit_length())
    return KEYS if capacity is None else min(capacity, wanted)


class Kind:
    """The passes of one kind on one state: how many there were, and a step for each number of keys."""

    def __init__(self) -> None:
        self.count = 0
        self.possible = True
        self.steps: dict[tuple[int, bool], StaticStep] = {}


class StateSteps:
    """The steps of one state, by kinds of passes, and the lane that they are captured on."""

    def __init__(self) -> None:
        self.kinds: dict[Any, Kind] = {}
        self.possible = True
        self.lane: Lane | None = None
        self.where: list[int] = []

    def clear(self) -> None:
        """Forgets what was captured. Nothing of it is to be kept: a graph that goes takes along what others need."""
        for kind in self.kinds.values():
            kind.steps.clear()
        self.lane = None

    def follow(self, state: Any) -> None:
        """Begins anew where the buffers moved."""
        where = buffer_addresses(state)
        if where != self.where:
            self.clear()
            self.where = where


class StaticSteps:
    """The steps of all states that are alive."""

    def __init__(self, ops: Any) -> None:
        self.ops, said = ops, wanted()
        self.possible, self.compiles = said != "0", said == "compile"
        self.capturing = ops.device.startswith("cuda")
        self.states: WeakKeyDictionary[Any, StateSteps] = WeakKeyDictionary()

    @cached_property
    def anchor(self) -> tuple[Any, Any]:
        """The lane and the graph of next to nothing, whose memory all others share: they run one after the other, and
        what one finds is copied before the next. A pool of memory ends with its last graph, and this one stays."""
        lane = lanes_of(self.ops.device).take(lasting=True)
        graph = lane.new_graph()
        with torch.cuda.stream(lane.stream), captured(graph):
            torch.zeros(1, device=self.ops.device)
        return lane, graph

    def read(
        self, ids: npt.NDArray[Any] | Array, state: Any, at: tuple[int, ...], record: Record
    ) -> Array | None:
        """As `Backend.replay`. The first pass of a kind goes op after op: only from the second on a graph pays."""
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
        B, T = ids.shape
        compiled = self.compiles and kind.count > COMPILE_AFTER
        key = keys_for(state.length + T, state.capacity), compiled
        step = kind.steps.get(key)
        if step is None:
            step = kind.steps[key] = StaticStep(self.ops, (B, T), key[0], state)
        step.ids.copy_(
            torch.from_numpy(ids.astype(np.int64)) if isinstance(ids, np.ndarray) else ids
        )
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
        try:
            known.lane = known.lane or lanes_of(self.ops.device).take()
            step.capture(state, record, compiled, known.lane, self.anchor[1].pool())
        except torch.OutOfMemoryError as error:  # another text may have the room
            reason = first_line(error)
            log.warning(
                "no memory for a CUDA graph (%s): this text goes on one operation after the other",
                reason,
            )
            known.possible = False
            known.clear()
            raise UnsupportedError(reason) from error
        except RuntimeError as error:  # a driver, a debugger or a library that does not allow it
            reason = first_line(error)
            log.warning(
                "CUDA graphs do not work here (%s): decoding goes one operation after the other",
                reason,
            )
            self.possible = False  # what failed is not tried again
            raise UnsupportedError(reason) from error
