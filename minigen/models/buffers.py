"""The arrays behind slots: how large they are, how they begin, rings of the newest tokens, and copies of what is
overwritten."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from minigen.backends.base import NUMBER_BYTES, Array, Backend, Quantized
from minigen.backends.quantized import Held, each, group_for, tokens
from minigen.layers.slot import ALL, Slot

Key = tuple[int, str]  # a layer and the name of a slot

SLACK = 64  # tokens that a ring keeps beyond those that are looked at, so as to go back by so many


class Owner(Protocol):
    """Who has the slots of all layers: a state, or one under branches."""

    def append(self, ops: Backend, new: Mapping[Key, Array]) -> list[Held]: ...

    def get(self, ops: Backend, key: Key) -> Array: ...

    def put(self, key: Key, value: Array) -> None: ...


class LayerView:
    """The slots of one layer during a pass, as `layers.slot.LayerSlots` says."""

    def __init__(self, owner: Owner, layer: int) -> None:
        self.owner, self.layer = owner, layer

    def append(self, ops: Backend, new: Mapping[str, Array]) -> list[Held]:
        return self.owner.append(ops, {(self.layer, name): x for name, x in new.items()})

    def get(self, ops: Backend, name: str) -> Array:
        return self.owner.get(ops, (self.layer, name))

    def put(self, name: str, value: Array) -> None:
        self.owner.put((self.layer, name), value)


@dataclass(frozen=True)
class Copy:
    """What was overwritten since, as it was after so many tokens."""

    length: int
    values: Mapping[Key, Array]


def thinned(copies: Sequence[Copy]) -> list[Copy]:
    """Copies whose distances grow with how far back they are: one goes where its neighbors are no further apart than
    the newer of them is from the end. The first stays, and the newest."""
    kept = list(copies)
    newest = kept[-1].length
    for place in range(len(kept) - 2, 0, -1):
        older, newer = kept[place - 1].length, kept[place + 1].length
        if newer - older <= newest - newer:
            del kept[place]
    return kept


def names_of(key: Key, x: Held) -> tuple[str, ...]:
    """What the arrays of a slot are called: a quantized one has codes, scales and biases."""
    name = f"{key[0]}.{key[1]}"
    return (name, f"{name}.scales", f"{name}.biases") if isinstance(x, Quantized) else (name,)


def room(slot: Slot, capacity: int) -> int:
    """The tokens that a slot with time has room for in a state of `capacity`."""
    return capacity if slot.time == ALL else int(slot.time or 1) - 1 + SLACK


def slot_bytes(ops: Backend, slot: Slot, batch: int, capacity: int) -> float:
    """What a slot takes."""
    count = batch * math.prod(slot.shape) * (1 if slot.time is None else room(slot, capacity))
    return count * number_bytes(ops, slot.shape[-1], slot.bits)


def number_bytes(ops: Backend, width: int, bits: int | None) -> float:
    """Bytes that a number of a head of this width takes, with its share of scales and biases."""
    size = NUMBER_BYTES[ops.dtype]
    return size if bits is None else bits / 8 + 2 * size / group_for(width)


def empty_slot(ops: Backend, slot: Slot, batch: int, capacity: int) -> Held:
    """Zeros: (B, G, tokens, D), or (B, *shape) of a slot without time."""
    if slot.time is None:
        return ops.zeros((batch, *slot.shape))
    G, D = slot.shape
    return empty_buffer(ops, (batch, G, room(slot, capacity), D), slot.bits)


def empty_buffer(ops: Backend, shape: tuple[int, int, int, int], bits: int | None) -> Held:
    """Zeros (B, G, tokens, D)."""
    if bits is None:
        return ops.zeros(shape)
    *outer, D = shape
    group = group_for(D)
    scales, biases = (ops.zeros((*outer, D // group)) for _ in range(2))
    return Quantized(ops.zeros((*outer, D * bits // 32), "uint32"), scales, biases, group, bits)


def read_ring(ops: Backend, ring: Held, window: int, length: int) -> Held | None:
    """After `length` tokens the newest window - 1, in their order; None where there are none."""
    size, count = int(ring.shape[2]), min(length, window - 1)
    if count == 0:
        return None
    first = (length - count) % size
    parts = [tokens(ring, first, min(first + count, size))]
    if first + count > size:
        parts.append(tokens(ring, 0, first + count - size))
    return each(lambda *arrays: ops.concat(arrays, axis=2), *parts)


def write_ring(ops: Backend, ring: Held, new: Array, length: int) -> Held:
    """The newest of `new` (B, G, T, D) written into a ring after `length` tokens."""
    size, T = int(ring.shape[2]), int(new.shape[2])
    first = max(0, T - size)
    while first < T:
        place = (length + first) % size
        last = min(T, first + size - place)
        (ring,) = ops.write([ring], [new[:, :, first:last]], place)
        first = last
    return ring


def like_ring(ops: Backend, ring: Held, new: Array) -> Held:
    """`new` as it would be read from the ring: rounded where that is quantized."""
    if not isinstance(ring, Quantized):
        return new
    B, G, T, D = new.shape
    (rounded,) = ops.write([empty_buffer(ops, (B, G, T, D), ring.bits)], [new], 0)
    return rounded


def rows_of(rows: int | Sequence[int], batch: int) -> list[int]:
    """The row numbers that `fork` means: a number n means each row n times, side by side."""
    return [row for row in range(batch) for _ in range(rows)] if isinstance(rows, int) else list(rows)
