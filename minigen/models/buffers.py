"""The arrays behind slots: sizes, rings of the newest tokens, snapshots of what is overwritten."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from minigen.backends.base import NUMBER_BYTES, Array, Backend, Quantized
from minigen.backends.quantized import Held, each, group_for, tokens
from minigen.layers.slot import ALL, Slot

Key = tuple[int, str]  # the index of a layer and the name of a slot

SLACK = 64  # how many more tokens a ring keeps than are looked at, so that it can go back


class SlotOwner(Protocol):
    """What has the slots of all layers: a state, or a state under branches."""

    def append(self, ops: Backend, new: Mapping[Key, Array]) -> list[Held]: ...

    def get(self, ops: Backend, key: Key) -> Array: ...

    def put(self, key: Key, value: Array) -> None: ...


class LayerView:
    """The slots of one layer during a pass; implements `layers.slot.LayerSlots`."""

    def __init__(self, owner: SlotOwner, layer: int) -> None:
        self.owner, self.layer = owner, layer

    def append(self, ops: Backend, new: Mapping[str, Array]) -> list[Held]:
        return self.owner.append(ops, {(self.layer, name): x for name, x in new.items()})

    def get(self, ops: Backend, name: str) -> Array:
        return self.owner.get(ops, (self.layer, name))

    def put(self, name: str, value: Array) -> None:
        self.owner.put((self.layer, name), value)


@dataclass(frozen=True)
class Snapshot:
    """The values of overwritten slots after `length` tokens."""

    length: int
    values: Mapping[Key, Array]


def thin_out(snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    """Drops snapshots so that their distances grow with their distance from the end.

    A snapshot goes where its two neighbors are no further apart than the newer of them is from the
    newest. The first and the newest stay, and of n tokens O(log n) snapshots remain.
    """
    remaining = list(snapshots)
    newest = remaining[-1].length
    for index in range(len(remaining) - 2, 0, -1):
        older, newer = remaining[index - 1].length, remaining[index + 1].length
        if newer - older <= newest - newer:
            del remaining[index]
    return remaining


def array_names(key: Key, x: Held) -> tuple[str, ...]:
    """The names of a slot's arrays in files: codes, scales and biases where it is quantized."""
    layer, slot = key
    name = f"{layer}.{slot}"
    if isinstance(x, Quantized):
        return name, f"{name}.scales", f"{name}.biases"
    return (name,)


def token_room(slot: Slot, capacity: int) -> int:
    """The number of tokens that a slot with time has room for in a state of `capacity` tokens."""
    if slot.time == ALL:
        return capacity
    assert isinstance(slot.time, int)
    return slot.time - 1 + SLACK


def slot_bytes(ops: Backend, slot: Slot, batch: int, capacity: int) -> float:
    """The memory that a slot takes."""
    numbers = batch * math.prod(slot.shape)
    if slot.time is not None:
        numbers *= token_room(slot, capacity)
    return numbers * number_bytes(ops, slot.shape[-1], slot.bits)


def number_bytes(ops: Backend, width: int, bits: int | None) -> float:
    """The bytes of a number in a head of this width, with its share of scales and biases."""
    size = NUMBER_BYTES[ops.dtype]
    if bits is None:
        return size
    return bits / 8 + 2 * size / group_for(width)


def empty_slot(ops: Backend, slot: Slot, batch: int, capacity: int) -> Held:
    """Zeros: (B, G, tokens, D) for a slot with time, (B, *shape) for one without."""
    if slot.time is None:
        return ops.zeros((batch, *slot.shape))
    G, D = slot.shape
    return empty_buffer(ops, (batch, G, token_room(slot, capacity), D), slot.bits)


def empty_buffer(ops: Backend, shape: tuple[int, int, int, int], bits: int | None) -> Held:
    """Zeros of this shape (B, G, tokens, D), quantized where `bits` are given."""
    if bits is None:
        return ops.zeros(shape)
    *outer, D = shape
    group = group_for(D)
    codes = ops.zeros((*outer, D * bits // 32), "uint32")
    scales = ops.zeros((*outer, D // group))
    biases = ops.zeros((*outer, D // group))
    return Quantized(codes, scales, biases, group, bits)


def concat_tokens(ops: Backend, *parts: Held) -> Held:
    """Entries of slots (B, G, tokens, D), one after the other."""
    return each(lambda *arrays: ops.concat(arrays, axis=2), *parts)


def read_ring(ops: Backend, ring: Held, window: int, length: int) -> Held | None:
    """The newest `window - 1` entries of a ring after `length` tokens; None if there are none."""
    size = int(ring.shape[2])
    count = min(length, window - 1)
    if count == 0:
        return None
    first = (length - count) % size
    parts = [tokens(ring, first, min(first + count, size))]
    if first + count > size:
        parts.append(tokens(ring, 0, first + count - size))
    return concat_tokens(ops, *parts)


def write_ring(ops: Backend, ring: Held, new: Array, length: int) -> Held:
    """Writes entries (B, G, T, D), the newest that fit, into a ring after `length` tokens."""
    size, T = int(ring.shape[2]), int(new.shape[2])
    first = max(0, T - size)
    while first < T:
        position = (length + first) % size
        last = min(T, first + size - position)
        (ring,) = ops.write([ring], [new[:, :, first:last]], position)
        first = last
    return ring


def as_stored(ops: Backend, ring: Held, new: Array) -> Held:
    """The entries `new` as they would be read from the ring: rounded where it is quantized."""
    if not isinstance(ring, Quantized):
        return new
    B, G, T, D = new.shape
    (rounded,) = ops.write([empty_buffer(ops, (B, G, T, D), ring.bits)], [new], 0)
    return rounded


def forked_rows(rows: int | Sequence[int], batch: int) -> list[int]:
    """The row numbers that `State.fork` takes: a number n means each row n times, side by side."""
    if not isinstance(rows, int):
        return list(rows)
    numbers = []
    for row in range(batch):
        numbers += [row] * rows
    return numbers
