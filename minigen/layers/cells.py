"""Recurrent cells in the layout of torch.nn: weight_ih (g H, I), weight_hh (g H, H) and two biases.

g is the number of gates. The input's share of all gates is one matrix product over all tokens; a
cell receives that share for one token and advances by one step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

from minigen.backends.base import Array, Backend
from minigen.layers.param import Param
from minigen.layers.slot import LayerSlots, Slot
from minigen.layers.step import Memory, Step, remembered


class Cell(Protocol):
    """One step of a recurrence."""

    @property
    def name(self) -> str:
        """What `Backend.recurrence` calls it."""
        ...

    @property
    def gates(self) -> int:
        """How many gates it has, the candidate value included."""
        ...

    @property
    def memory(self) -> tuple[str, ...]:
        """The names of what it remembers; the first of them is its output."""
        ...

    def step(self, ops: Backend, p: Any, gx: Array, state: Memory) -> Memory:
        """Reads one token.

        Args:
            ops: The operations of a backend.
            p: The parameters of `cell_shapes`, with arrays.
            gx: (B, g H), weight_ih x + bias_ih.
            state: One (B, H) for each name in `memory`.

        Returns:
            The state after the token.
        """
        ...


@dataclass(frozen=True)
class LSTMCell:
    """LSTM (Hochreiter and Schmidhuber 1997) with the forget gate of Gers et al. 2000.

    The gates are in the order i, f, g, o.
    """

    name: str = "lstm"
    gates: int = 4
    memory: tuple[str, ...] = ("h", "c")

    def step(self, ops: Backend, p: Any, gx: Array, state: Memory) -> Memory:
        h, c = state
        gates = gx + ops.linear(h, p["weight_hh"], p["bias_hh"])
        i, f, g, o = ops.split(gates, [h.shape[-1]] * 4, axis=-1)
        c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
        return ops.sigmoid(o) * ops.tanh(c), c


@dataclass(frozen=True)
class GRUCell:
    """GRU (Cho et al. 2014), with the reset gate applied after the product, as in torch and cuDNN.

    The gates are in the order r, z, n.
    """

    name: str = "gru"
    gates: int = 3
    memory: tuple[str, ...] = ("h",)

    def step(self, ops: Backend, p: Any, gx: Array, state: Memory) -> Memory:
        (h,) = state
        sizes = [h.shape[-1]] * 3
        xr, xz, xn = ops.split(gx, sizes, axis=-1)
        hr, hz, hn = ops.split(ops.linear(h, p["weight_hh"], p["bias_hh"]), sizes, axis=-1)
        z = ops.sigmoid(xz + hz)
        n = ops.tanh(xn + ops.sigmoid(xr + hr) * hn)
        return ((1 - z) * n + z * h,)


@dataclass(frozen=True)
class RNNCell:
    """The simple recurrent network of Elman 1990, with tanh."""

    name: str = "rnn"
    gates: int = 1
    memory: tuple[str, ...] = ("h",)

    def step(self, ops: Backend, p: Any, gx: Array, state: Memory) -> Memory:
        (h,) = state
        return (ops.tanh(gx + ops.linear(h, p["weight_hh"], p["bias_hh"])),)


CELLS: dict[str, Cell] = {"lstm": LSTMCell(), "gru": GRUCell(), "rnn": RNNCell()}


def cell_shapes(cell: Cell, inputs: int, hidden: int) -> dict[str, Param]:
    """The parameters of a cell, named, shaped and initialized as torch.nn does.

    Initial values are uniform within 1 / sqrt(hidden).
    """
    rows = cell.gates * hidden
    bound = 1 / math.sqrt(hidden)
    return {
        "weight_ih": Param((rows, inputs), "uniform", bound, stacked=cell.gates),
        "weight_hh": Param((rows, hidden), "uniform", bound, stacked=cell.gates),
        "bias_ih": Param((rows,), "uniform", bound),
        "bias_hh": Param((rows,), "uniform", bound),
    }


@dataclass(frozen=True)
class RecurrentBlock:
    """A layer of a recurrent model: dropout, then the cell over all tokens.

    `width` is the width of its input, `hidden` the width of its output. There is no residual
    stream.
    """

    cell: Cell
    width: int
    hidden: int

    def shapes(self, width: int, layers: int) -> dict[str, Param]:
        return cell_shapes(self.cell, self.width, self.hidden)

    def slots(self) -> dict[str, Slot]:
        return {name: Slot((self.hidden,)) for name in self.cell.memory}

    def apply(self, ops: Backend, p: Any, x: Array, step: Step, slots: LayerSlots | None) -> Array:
        """x (B, T, C) -> (B, T, H)."""
        before = remembered(ops, slots, self.cell.memory, (x.shape[0], self.hidden))
        y, after = self.run(ops, p, ops.dropout(x), step, before)
        if slots is not None:
            for name, value in zip(self.cell.memory, after, strict=True):
                slots.put(name, value)
        return y

    def run(
        self, ops: Backend, p: Any, x: Array, step: Step, before: Memory
    ) -> tuple[Array, Memory]:
        """x (B, T, C) and the memory before it -> (B, T, H) and the memory after it.

        The backend's own kernel runs where there is one; it knows neither branches nor padding.
        """
        if step.sequential and step.real() is None:
            fused = ops.recurrence(self.cell.name, p, x, before)
            if fused is not None:
                y, after = fused
                return y, after

        def advance(gates: Array, memory: Memory) -> tuple[Array, Memory]:
            after = self.cell.step(ops, p, gates, memory)
            return after[0], after

        return step.recur(ops, ops.linear(x, p["weight_ih"], p["bias_ih"]), before, advance)
