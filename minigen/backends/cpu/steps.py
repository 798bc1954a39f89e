"""Passes of few new tokens on a CPU: recorded once for a state, then run by one call each."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch

from minigen.backends.base import Array
from minigen.backends.cpu.cache import UnrecordableError
from minigen.backends.cpu.crew import Crew
from minigen.backends.cpu.instructions import as_program
from minigen.backends.cpu.program import run
from minigen.backends.cpu.recorder import Recorder
from minigen.backends.quantized import arrays_of

ROWS = 16  # beyond, torch's operations cost little beside the arithmetic

log = logging.getLogger("minigen")


def buffer_addresses(state: Any) -> list[int]:
    """Where the buffers of a cache lie."""
    return [x.data_ptr() for x in arrays_of(state.buffers)]


class Program:
    """The recorded pass of `shape` (B, T) new tokens after what a state holds."""

    def __init__(
        self, shape: tuple[int, int], state: Any, record: Callable[[Any, Any], Any]
    ) -> None:
        recorder = Recorder(shape)
        result = record(recorder, recorder.ids)
        if result is None:
            raise UnrecordableError("the architecture does not offer it")
        self.shape, self.kept, self.tables = shape, recorder.kept, recorder.tables
        self.result = np.asarray(recorder.lines(result, result.shape[-1])).view(np.ndarray)
        self.where = buffer_addresses(state)
        self.instructions = as_program(recorder.instructions)

    def fits(self, state: Any) -> bool:
        """Whether the state still lies where it lay."""
        return self.where == buffer_addresses(state)

    def run(self, ids: npt.NDArray[np.int64], state: Any, crew: Crew) -> Array:
        """Logits (B, T or 1, V) float32."""
        B, T = self.shape
        state.check_room(T)
        lanes = np.repeat(np.arange(B), T)
        at = state.length + np.tile(np.arange(T), B)
        starts = np.zeros_like(at) if state.starts is None else state.starts[lanes]
        positions, ids = np.maximum(at - starts, 0), np.ascontiguousarray(ids, np.int64).reshape(-1)
        assert ids.min() >= 0
        assert ids.max() < self.tables[0]
        assert positions.max() < self.tables[1]

        def run_program(threads: int) -> None:
            run(self.instructions, ids, positions, starts, lanes, at, threads)

        crew.run(self.shape, run_program)
        state.passed(T)
        return torch.from_numpy(self.result.copy()).reshape(B, -1, self.result.shape[-1])


class Steps:
    """The programs of all states that are alive: for each kind of pass None at first, then its program, or False where
    it cannot be recorded."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self.programs: WeakKeyDictionary[Any, dict[Any, Program | Literal[False] | None]] = (
            WeakKeyDictionary()
        )

    def read(
        self,
        ids: npt.NDArray[Any],
        state: Any,
        at: tuple[int, ...],
        record: Callable[[Any, Any], Any],
    ) -> Array | None:
        """As `Backend.replay`. The first pass of a kind goes by torch: only from the second on a recording pays."""
        if ids.size > ROWS or 1 not in ids.shape or state.length == 0:
            return None
        known, key = self.programs.setdefault(state, {}), (ids.shape, at)
        if key not in known:
            known[key] = None
            return None
        program = known[key]
        if program is None or (program and not program.fits(state)):
            try:
                program = Program(ids.shape, state, record)
            except UnrecordableError as reason:
                log.debug("passes of %s tokens are not recorded: %s", ids.shape, reason)
                program = False
            known[key] = program
        return program.run(ids, state, self.crew) if program else None
