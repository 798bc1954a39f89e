"""What a block remembers of a text, declared as data: one State allocates, forks, saves and takes back all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from minigen.backends.base import Array, Backend
from minigen.backends.quantized import Held

ALL: Literal["all"] = "all"


@dataclass(frozen=True)
class Slot:
    """One array that a block remembers.

    `time` says of which tokens. ALL, or a number W for the newest W: `shape` is (G, D) of each token, and the block
    appends. None: there is one array of `shape` for all that was read, and the block puts a new one in its place.
    `bits` of each number, for keys and values that are held quantized; None: the model's dtype.
    """

    shape: tuple[int, ...]
    time: Literal["all"] | int | None = None
    bits: int | None = None


@dataclass(frozen=True)
class LentSlot:
    """A slot of an earlier layer, which the block looks into and does not change."""

    layer: int
    name: str


Slots = Mapping[str, Slot | LentSlot]


class LayerSlots(Protocol):
    """The slots of one layer, as its block sees them during a pass. B rows, T new tokens."""

    def append(self, ops: Backend, new: Mapping[str, Array]) -> list[Held]:
        """`new` by name, each (B, G, T, D) of the new tokens -> those of all tokens that each slot has, these last: (B,
        G, S, D). Slots that are alike go together, so that their numbers are quantized in one operation."""
        ...

    def get(self, ops: Backend, name: str) -> Array:
        """(B, *shape), as it was before the pass."""
        ...

    def put(self, name: str, value: Array) -> None:
        """(B, *shape): what it is after the pass; also what `get` gave of another slot, but no part of that."""
        ...
