"""The recurrent language model, once, for every cell and both backends: embedding, stacked cells, linear head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minigen.backends.base import Array, Backend, Tree
from minigen.layers.cells import Cell, CellState, cell_shapes, run_layer
from minigen.layers.param import Param, linear_shapes
from minigen.layers.step import Step, pick_steps
from minigen.models.state import Starts, check_rewind, rows_of

SNAPSHOT_EVERY = 64  # tokens between the copies that rewind can go back to


class RecurrentState:
    """(h, c) or (h,) of every layer, each (B, H), and copies of them at earlier lengths.

    Copies are kept at the start, after every prompt or turn (a forward of several tokens), and every 64 tokens
    between, so that a long generation costs little memory; and that before the last forward, which can be taken back.
    """

    kind = "recurrent"
    capacity = None
    buffers = ()  # a step makes the state anew

    def __init__(self, layers: list[CellState], length: int, starts: Starts | None = None) -> None:
        self.layers, self.length, self.starts = layers, length, starts
        self.snapshots = [(length, layers)]
        self.previous = (length, layers)

    @property
    def batch(self) -> int:
        return int(self.layers[0][0].shape[0])

    def advance(self, layers: list[CellState], new: int) -> None:
        """Takes over the state that `new` tokens led to."""
        self.previous = (self.length, self.layers)
        self.layers, self.length = layers, self.length + new
        if new > 1 or self.length - self.snapshots[-1][0] >= SNAPSHOT_EVERY:
            self.snapshots.append((self.length, layers))

    def rewind(self, length: int) -> int:
        check_rewind(self, length)
        if length < self.length:
            kept = [snapshot for snapshot in self.snapshots if snapshot[0] <= length]
            if not kept:  # a state that was loaded knows nothing of what came before
                raise ValueError(f"cannot rewind to {length} tokens: the oldest copy has {self.snapshots[0][0]}")
            self.snapshots = kept
            exact = self.previous[0] == length
            self.length, self.layers = self.previous = self.previous if exact else kept[-1]
        return self.length

    def fork(self, ops: Backend, rows: int | Sequence[int]) -> RecurrentState:
        chosen = rows_of(rows, self.batch)

        def copy(layers: list[CellState]) -> list[CellState]:
            return [tuple(ops.take(x, chosen, axis=0) for x in layer) for layer in layers]

        starts = None if self.starts is None else self.starts[chosen]
        state = RecurrentState(copy(self.layers), self.length, starts)
        state.snapshots = [(length, copy(layers)) for length, layers in self.snapshots]
        return state

    def reserve(self, ops: Backend, length: int) -> None:
        """Nothing to do: the state has one size."""

    def arrays(self) -> dict[str, Array]:
        return {f"{i}.{j}": x for i, layer in enumerate(self.layers) for j, x in enumerate(layer)}

    def shapes(self, length: int) -> dict[str, tuple[int, ...]]:
        return {name: tuple(x.shape) for name, x in self.arrays().items()}

    def restore(self, arrays: Mapping[str, Array], length: int) -> None:
        self.layers = [tuple(arrays[f"{i}.{j}"] for j in range(len(layer))) for i, layer in enumerate(self.layers)]
        self.length = length
        self.snapshots = [(length, self.layers)]
        self.previous = self.snapshots[0]


@dataclass(frozen=True)
class Recurrent:
    """What a recurrent model is made of. `tied`: the head's weight is the embedding (it keeps a bias of its own).

    Letters: B batch, T new tokens, C embedding width, H hidden width, V vocabulary.
    """

    vocab_size: int
    width: int
    hidden: int
    layers: int
    cell: Cell
    tied: bool = False
    context: int | None = None  # no bound: the state has one size however long the text

    def shapes(self) -> Tree:
        """The parameter tree, with a Param at each leaf."""
        head = linear_shapes(self.hidden, self.vocab_size, bias=True)
        if self.tied:
            del head["weight"]
        widths = [self.width] + [self.hidden] * (self.layers - 1)
        return {
            "embedding": {"weight": Param((self.vocab_size, self.width))},
            "layers": [cell_shapes(self.cell, width, self.hidden) for width in widths],
            "head": head,
        }

    def new_state(self, ops: Backend, batch: int, length: int, starts: Starts | None = None) -> RecurrentState:
        """Zeros for `batch` rows; `length` is of no consequence, `starts` as in Step."""
        zeros = ops.zeros((batch, self.hidden))
        return RecurrentState([(zeros,) * self.cell.states for _ in range(self.layers)], 0, starts)

    def record(
        self, ops: Backend, params: Tree, ids: Array, state: RecurrentState, at: Sequence[int] | None = None
    ) -> Array | None:
        return None

    def forward(
        self,
        ops: Backend,
        params: Tree,
        ids: Array,
        state: RecurrentState | None = None,
        at: Sequence[int] | None = None,
    ) -> Array:
        """ids (B, T) -> logits (B, T, V), or (B, len(at), V) after the tokens `at` alone.

        With a state, the tokens follow those it holds and are added to it; without, they stand alone.
        """
        B, T = ids.shape
        state = self.new_state(ops, B, T) if state is None else state
        mask = Step(state.length, T, state.starts).real()
        real = None if mask is None else ops.asarray(mask[:, :, None])
        x = ops.embedding(ids, params["embedding"]["weight"])
        after: list[Any] = []
        for p, before in zip(params["layers"], state.layers, strict=True):
            x, new = run_layer(ops, self.cell, p, ops.dropout(x), before, real)
            after.append(new)
        state.advance(after, T)
        if at is not None:
            x = pick_steps(ops, x, at)
        weight = params["embedding"]["weight"] if self.tied else params["head"]["weight"]
        return ops.linear(x, weight, params["head"]["bias"])
