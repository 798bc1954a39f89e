"""What a model remembers of the tokens it has read: the slots that its blocks declare, in one State.

A state is changed by a pass of the model, which adds tokens. Nothing keeps an older one: undo is `rewind`, a second
line of thought is `fork`. Saving is in `checkpoints/state_file.py`.
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
    Copy,
    Key,
    LayerView,
    empty_slot,
    like_ring,
    names_of,
    read_ring,
    rows_of,
    slot_bytes,
    thinned,
    write_ring,
)
from minigen.models.held_slots import HeldSlots

Starts = npt.NDArray[np.int64]

COPY_EVERY = 64  # tokens between the copies of what is overwritten


class State(HeldSlots):
    """`length` tokens of `batch` rows, padding counted. `starts` (B,) is where each row's text begins, or None.

    A slot of all tokens is a buffer (B, G, capacity, D) that is written in place, one of the newest W a ring of W - 1 +
    SLACK of them, and one without time an array that each pass overwrites. Quantized buffers hold 8 or 4 bits a number:
    what is appended is rounded once, as it comes, and every token has groups of its own, so that a text says the same
    whether it is rewound, forked, or read anew in the same passes.

    Slots of all tokens go back to any length. A ring goes back by SLACK tokens. What is overwritten goes back to copies
    alone, which are kept at the beginning, after every pass of several tokens and every 64 tokens between, and thinned
    the further back they are, so that n tokens leave O(log n).
    """

    def __init__(
        self, ops: Backend, slots: Mapping[Key, Slot], held: dict[Key, Held], length: int, starts: Starts | None
    ) -> None:
        self.ops, self.slots, self.held, self.length, self.starts = ops, slots, held, length, starts
        # Of the pass under way: what it got from slots without time, and what it puts there in the end.
        self.given: dict[Key, Array] = {}
        self.pending: dict[Key, Array] = {}
        self.reached = length  # the longest that it has been: what lay in a ring before may be gone
        self.copies: list[Copy] = []
        self.copy()

    @classmethod
    def empty(
        cls, ops: Backend, layers: Sequence[Slots], batch: int, capacity: int, starts: Starts | None = None
    ) -> State:
        """Room for `capacity` tokens of `batch` rows. Raises BackendError where the device has less memory."""
        slots = {
            (layer, name): slot
            for layer, named in enumerate(layers)
            for name, slot in named.items()
            if isinstance(slot, Slot)
        }
        wanted = sum(slot_bytes(ops, slot, batch, capacity) for slot in slots.values())
        check_memory(round(wanted), ops.total_memory())
        held = {key: empty_slot(ops, slot, batch, capacity) for key, slot in slots.items()}
        return cls(ops, slots, held, 0, starts)

    # -- a pass -------------------------------------------------------------------------------------------------------
    def layer(self, index: int) -> LayerView:
        return LayerView(self, index)

    def check_room(self, new: int) -> None:
        """Raises ContextError unless `new` more tokens fit."""
        capacity = self.capacity
        if capacity is not None and self.length + new > capacity:
            raise ContextError(f"{new} more tokens do not fit after {self.length}: the state has room for {capacity}")

    def append(self, ops: Backend, new: Mapping[Key, Array]) -> list[Held]:
        """`new` by slot, each (B, G, T, D) of the new tokens -> those of all tokens that each slot has, these last."""
        keys = list(new)
        if any(self.slots[key].time != ALL for key in keys):
            return [self.append_to_ring(ops, key, x) for key, x in new.items()]
        written = ops.write([self.held[key] for key in keys], list(new.values()), self.length)
        self.held.update(zip(keys, written, strict=True))
        end = self.length + new[keys[0]].shape[2]
        return [tokens(x, 0, end) for x in written]

    def append_to_ring(self, ops: Backend, key: Key, new: Array) -> Held:
        self.reached = max(self.reached, self.length + new.shape[2])
        older = self.newest(ops, key)
        self.held[key] = write_ring(ops, self.held[key], new, self.length)
        rounded = like_ring(ops, self.held[key], new)
        return rounded if older is None else each(lambda *parts: ops.concat(parts, axis=2), older, rounded)

    def newest(self, ops: Backend, key: Key) -> Held | None:
        """The tokens of a ring that the next one looks at, in their order; None where there are none."""
        return read_ring(ops, self.held[key], self.window(key), self.length)

    def get(self, ops: Backend, key: Key) -> Array:
        """What a slot without time had before the pass."""
        self.given[key] = ops.remembered(self.held[key])
        return self.given[key]

    def put(self, key: Key, value: Array) -> None:
        """What a slot without time has after the pass."""
        self.pending[key] = value

    def settle(self, ops: Backend) -> None:
        """Ends the operations of a pass: what it put takes the place of what was there, in the order of `put`.

        What a block got from one slot it may put into another; it is copied first where its own slot comes before.
        """
        owners = {id(value): key for key, value in self.given.items()}
        order = list(self.pending)
        values = []
        for place, (key, value) in enumerate(self.pending.items()):
            owner = owners.get(id(value), key)
            values.append(ops.copy(value) if owner in order[:place] else value)
        for key, value in zip(order, values, strict=True):
            self.held[key] = ops.assign(self.held[key], value)
        self.given, self.pending = {}, {}

    def passed(self, new: int) -> None:
        """A pass over `new` tokens has been done."""
        self.length += new
        self.reached = max(self.reached, self.length)
        if new > 1 or (self.copies and self.length - self.copies[-1].length >= COPY_EVERY):
            self.copy()

    # -- going back ---------------------------------------------------------------------------------------------------
    @property
    def goes_back_anywhere(self) -> bool:
        """Whether every slot keeps all tokens, so that `reachable` is any length."""
        return not self.overwritten and not self.rings

    def mark(self) -> None:
        """Makes the length that it has reachable later on, as far as rings go back."""
        if not self.copies or self.copies[-1].length != self.length:
            self.copy()

    def copy(self) -> None:
        """Keeps a copy of what is overwritten."""
        if not self.overwritten:
            return
        values = {key: self.ops.copy(self.held[key]) for key in self.overwritten}
        self.copies = thinned([*self.copies, Copy(self.length, values)])

    def reachable(self, length: int) -> int:
        """The newest length up to `length` that `rewind` can go to. Changes nothing."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot rewind to {length} tokens: the state has {self.length}")
        lengths = [length]
        if self.overwritten and length < self.length:
            lengths = [copy.length for copy in self.copies if copy.length <= length]
        lengths = [candidate for candidate in lengths if self.in_rings(candidate)]
        return max(lengths, default=0)

    def in_rings(self, length: int) -> bool:
        """Whether rings still have what a text of this length looks at."""
        for key in self.rings:
            oldest = self.reached - int(self.held[key].shape[2])  # that may still be there
            if max(length - (self.window(key) - 1), 0) < max(oldest, 0):
                return False
        return True

    def rewind(self, length: int) -> None:
        """Forgets what came after the first `length` tokens. Raises ValueError unless that is `reachable`."""
        if self.reachable(length) != length:
            raise ValueError(f"cannot rewind to {length} tokens: {self.reachable(length)} are reachable")
        self.given, self.pending = {}, {}
        if length == self.length and self.in_rings(length):
            return
        self.copies = [copy for copy in self.copies if copy.length <= length]
        for key in self.overwritten:
            if self.copies and self.copies[-1].length == length:
                value = self.copies[-1].values[key]
            else:  # a state that was loaded knows nothing of what came before, but how it began
                value = self.ops.zeros(tuple(self.held[key].shape))
            self.held[key] = self.ops.assign(self.held[key], value)
        self.length = length
        if length == 0:
            self.reached = 0
            self.mark()

    # -- other states -------------------------------------------------------------------------------------------------
    def fork(self, ops: Backend, rows: int | Sequence[int]) -> State:
        """A state of its own with the given rows of this one, in that order; a number n: each row n times."""
        chosen = rows_of(rows, self.batch)
        starts = None if self.starts is None else self.starts[chosen]

        def take(x: Held) -> Held:
            return each(lambda part: ops.take(part, chosen, axis=0), x)

        held = {key: take(x) for key, x in self.held.items()}
        copies = [Copy(c.length, {key: take(x) for key, x in c.values.items()}) for c in self.copies]
        state = State(self.ops, self.slots, held, self.length, starts)
        state.reached = self.reached
        state.copies = copies
        return state

    def reserve(self, ops: Backend, length: int) -> None:
        """Makes room for `length` tokens in all."""
        for key, slot in self.slots.items():
            old = self.held[key]
            if slot.time != ALL or length <= old.shape[2]:
                continue
            more = empty_slot(ops, slot, self.batch, length - int(old.shape[2]))
            self.held[key] = each(lambda *parts: ops.concat(parts, axis=2), old, more)

    # -- files --------------------------------------------------------------------------------------------------------
    def restore(self, arrays: Mapping[str, Array], length: int) -> None:
        """Takes over what `arrays` gave of a state with this length."""
        for key, old in self.held.items():
            names = iter(names_of(key, old))
            self.held[key] = each(lambda _, names=names: arrays[next(names)], old)
        self.length = self.reached = length
        self.copies = []
        self.copy()
