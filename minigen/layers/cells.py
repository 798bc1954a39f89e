"""Recurrent cells in torch.nn's layout: weight_ih (g H, I), weight_hh (g H, H), and a bias for each, g gates high.

A cell is given the input's share of the gates, which is one matrix product over all time steps, and does one step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

from minigen.backends.base import Array, Backend
from minigen.layers.param import Param

CellState = tuple[Array, ...]  # (h,) or (h, c), each (B, H)


class Cell(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def gates(self) -> int: ...

    @property
    def states(self) -> int: ...

    def step(self, ops: Backend, p: Any, gx: Array, state: CellState) -> CellState:
        """gx (B, g H): weight_ih x + bias_ih. Returns the state after the step; its first array is the output."""
        ...


@dataclass(frozen=True)
class LSTMCell:
    """Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000; gates in the order i, f, g, o."""

    name: str = "lstm"
    gates: int = 4
    states: int = 2

    def step(self, ops: Backend, p: Any, gx: Array, state: CellState) -> CellState:
        h, c = state
        i, f, g, o = ops.split(gx + ops.linear(h, p["weight_hh"], p["bias_hh"]), [h.shape[-1]] * 4, axis=-1)
        c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
        return ops.sigmoid(o) * ops.tanh(c), c


@dataclass(frozen=True)
class GRUCell:
    """Cho et al. 2014; gates in the order r, z, n, the reset applied after the product, as torch and cuDNN do."""

    name: str = "gru"
    gates: int = 3
    states: int = 1

    def step(self, ops: Backend, p: Any, gx: Array, state: CellState) -> CellState:
        (h,) = state
        sizes = [h.shape[-1]] * 3
        xr, xz, xn = ops.split(gx, sizes, axis=-1)
        hr, hz, hn = ops.split(ops.linear(h, p["weight_hh"], p["bias_hh"]), sizes, axis=-1)
        z = ops.sigmoid(xz + hz)
        n = ops.tanh(xn + ops.sigmoid(xr + hr) * hn)
        return ((1 - z) * n + z * h,)


@dataclass(frozen=True)
class RNNCell:
    """Elman 1990, with tanh."""

    name: str = "rnn"
    gates: int = 1
    states: int = 1

    def step(self, ops: Backend, p: Any, gx: Array, state: CellState) -> CellState:
        (h,) = state
        return (ops.tanh(gx + ops.linear(h, p["weight_hh"], p["bias_hh"])),)


CELLS: dict[str, Cell] = {"lstm": LSTMCell(), "gru": GRUCell(), "rnn": RNNCell()}


def cell_shapes(cell: Cell, inputs: int, hidden: int) -> dict[str, Param]:
    """torch.nn's names, shapes and start: uniform within 1/sqrt(hidden)."""
    rows, bound = cell.gates * hidden, 1 / math.sqrt(hidden)
    return {
        "weight_ih": Param((rows, inputs), "uniform", bound, stacked=cell.gates),
        "weight_hh": Param((rows, hidden), "uniform", bound, stacked=cell.gates),
        "bias_ih": Param((rows,), "uniform", bound),
        "bias_hh": Param((rows,), "uniform", bound),
    }


def run_layer(
    ops: Backend, cell: Cell, p: Any, x: Array, state: CellState, real: Array | None = None
) -> tuple[Array, CellState]:
    """One layer over all steps: x (B, T, I) -> (B, T, H) and the state after them.

    `real` (B, T, 1) is false where a step is padding; the state then stays as it was.
    """
    fused = ops.recurrence(cell.name, p, x, state) if real is None else None
    if fused is not None:
        y, state = fused
        return y, state
    B, T, _ = x.shape
    # Split, not indexed: the gradient of an index is an array of all steps, and T of those are quadratic in time.
    gates = ops.split(ops.linear(x, p["weight_ih"], p["bias_ih"]), [1] * T, axis=1)
    outputs = []
    for t, gx in enumerate(gates):
        new = cell.step(ops, p, gx.reshape(B, -1), state)
        if real is not None:
            new = tuple(ops.where(real[:, t], after, before) for after, before in zip(new, state, strict=True))
        state = new
        outputs.append(state[0])
    return ops.stack(outputs, axis=1), state
