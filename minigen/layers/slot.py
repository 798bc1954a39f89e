"""What a block remembers of a text, declared as data.

`models.state.State` allocates, forks, rewinds, saves and restores all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from minigen.backends.base import Array, Backend
from minigen.backends.quantized import Held

ALL: Literal["all"] = "all"


@dataclass(frozen=True)
class Slot:
    """One array that a block remembers between passes.

    There are three kinds, by `time`:

    - `ALL`: an entry for every token, such as keys and values. `shape` is (G, D), that of one
      token, and the block adds entries with `LayerSlots.append`.
    - a number W: the same, for the newest W tokens only.
    - None: one array of `shape` for the whole text, such as the state of a recurrence. The block
      replaces it in each pass, with `LayerSlots.put`.

    Fields:
        shape: See above; the batch is not part of it.
        time: See above.
        bits: The bits of each number where entries are quantized; None: they have the model's
            dtype.
    """

    shape: tuple[int, ...]
    time: Literal["all"] | int | None = None
    bits: int | None = None


@dataclass(frozen=True)
class LentSlot:
    """A slot of an earlier layer that the block reads and does not change.

    During a pass the block gets it by `Step.borrow`; the lending block must call `Step.lend`.
    """

    layer: int
    name: str


Slots = Mapping[str, Slot | LentSlot]  # those of a block, by name


class LayerSlots(Protocol):
    """The slots of one layer, as its block sees them during a pass of B rows and T new tokens."""

    def append(self, ops: Backend, new: Mapping[str, Array]) -> list[Held]:
        """Adds the entries of the new tokens to slots with time.

        Slots of equal shape are best given together: their entries are then quantized in one
        operation.

        Args:
            ops: The operations of a backend.
            new: By slot name, (B, G, T, D).

        Returns:
            For each name, in the same order, the entries that the new tokens may look at, the new
            ones last: (B, G, S, D), quantized where the slot is.
        """
        ...

    def get(self, ops: Backend, name: str) -> Array:
        """The array of a slot without time, (B, *shape), as it was before the pass."""
        ...

    def put(self, name: str, value: Array) -> None:
        """Sets what a slot without time holds after the pass, (B, *shape).

        `value` may be an array that `get` returned for another slot, but not a view of a part of
        one.
        """
        ...
