"""What a model remembers of the tokens it has read: the slots of all its blocks, in one State.

A pass of the model changes the state by adding tokens. No older state is kept: undo is `rewind`,
and a second continuation is a `fork`. Saving is in `checkpoints/state_file.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from minigen.backends.base import Array, Backend
from minigen.backends.memory import check_memory
from minigen.backends.quantized import Held, each, tokens
from minigen.errors import ContextError
from minigen.layers.slot import ALL, Slot, Slots
from minigen.models.buffers import (
    Key,
    LayerView,
    Snapshot,
    array_names,
    as_stored,
    concat_tokens,
    empty_slot,
    forked_rows,
    read_ring,
    slot_bytes,
    write_ring,
)
from minigen.models.rewinding import RewindableContents

Starts = npt.NDArray[np.int64]


class State(RewindableContents):
    """What a model remembers of `batch` rows of `length` tokens each, padding counted.

    `starts` (B,) is the index of the first real token of each row, or None where no row is padded.

    A slot of all tokens is a buffer (B, G, capacity, D) that is written in place. A slot of the
    newest W tokens is a ring of W - 1 + SLACK of them. A slot without time is an array that each
    pass overwrites. Quantized buffers have 8 or 4 bits per number: an entry is rounded once, when
    it is appended, and every token has groups of its own, so a text gives the same result whether
    it is rewound, forked or read again in the same passes.

    How far back a state can go: slots of all tokens, to any length; rings, by SLACK tokens; what
    is overwritten, to snapshots only. Snapshots are taken at the beginning, after every pass of
    several tokens and every 64 tokens between, and thinned out the further back they are.
    """

    def __init__(
        self,
        ops: Backend,
        slots: Mapping[Key, Slot],
        contents: dict[Key, Held],
        length: int,
        starts: Starts | None,
    ) -> None:
        self.ops, self.slots, self.contents = ops, slots, contents
        self.length, self.starts = length, starts
        self.operands: dict[Key, Array] = {}
        self.pending: dict[Key, Array] = {}
        self.longest = length
        self.snapshots = []
        self.take_snapshot()

    @classmethod
    def empty(
        cls,
        ops: Backend,
        layers: Sequence[Slots],
        batch: int,
        capacity: int,
        starts: Starts | None = None,
    ) -> State:
        """A state with room for `capacity` tokens in each of `batch` rows.

        Args:
            ops: The operations of a backend.
            layers: The slots that each layer declares.
            batch: The number of rows.
            capacity: The number of tokens to make room for, padding counted.
            starts: (batch,), the first real token of each row; None: no row is padded.

        Raises BackendError: the device has too little memory.
        """
        slots = {}
        for layer, layer_slots in enumerate(layers):
            for name, slot in layer_slots.items():
                if isinstance(slot, Slot):
                    slots[layer, name] = slot
        size = sum(slot_bytes(ops, slot, batch, capacity) for slot in slots.values())
        check_memory(round(size), ops.total_memory())
        contents = {key: empty_slot(ops, slot, batch, capacity) for key, slot in slots.items()}
        return cls(ops, slots, contents, 0, starts)

    # -- a pass ------------------------------------------------------------------------------------
    def layer(self, index: int) -> LayerView:
        """The slots of one layer."""
        return LayerView(self, index)

    def check_room(self, new: int) -> None:
        """Raises ContextError unless `new` more tokens fit."""
        capacity = self.capacity
        if capacity is not None and self.length + new > capacity:
            raise ContextError(
                f"{new} more tokens do not fit after {self.length}: "
                f"the state has room for {capacity}"
            )

    def append(self, ops: Backend, new: Mapping[Key, Array]) -> list[Held]:
        """As `LayerSlots.append`: adds entries (B, G, T, D), returns all that can be seen."""
        keys = list(new)
        if any(self.slots[key].time != ALL for key in keys):
            return [self.append_to_ring(ops, key, x) for key, x in new.items()]
        written = ops.write([self.contents[key] for key in keys], list(new.values()), self.length)
        self.contents.update(zip(keys, written, strict=True))
        end = self.length + new[keys[0]].shape[2]
        return [tokens(x, 0, end) for x in written]

    def append_to_ring(self, ops: Backend, key: Key, new: Array) -> Held:
        """The same for one ring."""
        self.longest = max(self.longest, self.length + new.shape[2])
        older = self.newest(ops, key)
        self.contents[key] = write_ring(ops, self.contents[key], new, self.length)
        entries = as_stored(ops, self.contents[key], new)
        if older is None:
            return entries
        return concat_tokens(ops, older, entries)

    def newest(self, ops: Backend, key: Key) -> Held | None:
        """The entries of a ring that the next token looks at; None where there are none."""
        return read_ring(ops, self.contents[key], self.window(key), self.length)

    def get(self, ops: Backend, key: Key) -> Array:
        """What a slot without time held before the pass."""
        self.operands[key] = ops.remembered(self.contents[key])
        return self.operands[key]

    def put(self, key: Key, value: Array) -> None:
        """Sets what a slot without time holds after the pass."""
        self.pending[key] = value

    def commit(self, ops: Backend) -> None:
        """Ends the operations of a pass: writes what was put, in that order.

        A block may put into one slot what it got from another. If that other slot is written before
        it, the value is copied first.
        """
        sources = {id(value): key for key, value in self.operands.items()}
        order = list(self.pending)
        values = []
        for index, (key, value) in enumerate(self.pending.items()):
            source = sources.get(id(value), key)
            if source in order[:index]:
                value = ops.copy(value)
            values.append(value)
        for key, value in zip(order, values, strict=True):
            self.contents[key] = ops.assign(self.contents[key], value)
        self.operands, self.pending = {}, {}

    def passed(self, new: int) -> None:
        """Counts the `new` tokens of a pass that is done."""
        self.length += new
        self.longest = max(self.longest, self.length)
        if new > 1 or self.snapshot_is_due():
            self.take_snapshot()

    # -- other states ------------------------------------------------------------------------------
    def fork(self, ops: Backend, rows: int | Sequence[int]) -> State:
        """A separate state with the given rows of this one, in that order.

        A number n stands for each row n times, side by side.
        """
        chosen = forked_rows(rows, self.batch)

        def take_rows(arrays: Mapping[Key, Held]) -> dict[Key, Held]:
            return {
                key: each(lambda array: ops.take(array, chosen, axis=0), x)
                for key, x in arrays.items()
            }

        starts = self.starts
        if starts is not None:
            starts = starts[chosen]
        snapshots = [Snapshot(taken.length, take_rows(taken.values)) for taken in self.snapshots]
        state = State(self.ops, self.slots, take_rows(self.contents), self.length, starts)
        state.longest = self.longest
        state.snapshots = snapshots
        return state

    def reserve(self, ops: Backend, length: int) -> None:
        """Makes room for `length` tokens in all."""
        for key, slot in self.slots.items():
            old = self.contents[key]
            if slot.time != ALL or length <= old.shape[2]:
                continue
            more = empty_slot(ops, slot, self.batch, length - int(old.shape[2]))
            self.contents[key] = concat_tokens(ops, old, more)

    # -- files -------------------------------------------------------------------------------------
    def restore(self, arrays: Mapping[str, Array], length: int) -> None:
        """Takes over the `arrays` of a saved state of this length."""
        for key, old in self.contents.items():
            names = iter(array_names(key, old))
            self.contents[key] = each(lambda _, names=names: arrays[next(names)], old)
        self.length = self.longest = length
        self.snapshots = []
        self.take_snapshot()
