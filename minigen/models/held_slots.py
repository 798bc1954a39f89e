"""What a state holds: an array for each slot of each layer, as they are called in files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from minigen.backends.base import Array
from minigen.backends.quantized import Held, arrays_of
from minigen.layers.slot import ALL, Slot
from minigen.models.buffers import Key, names_of

KEPT = {"kv": "unquantized", "kv8": "in 8 bits", "kv4": "in 4 bits"}  # keys and values, by the kind of a state


class HeldSlots:
    """`length` tokens of `batch` rows, in the slots of all layers."""

    slots: Mapping[Key, Slot]
    held: dict[Key, Held]
    length: int
    starts: npt.NDArray[np.int64] | None

    @property
    def batch(self) -> int:
        return int(next(iter(self.held.values())).shape[0])

    @property
    def capacity(self) -> int | None:
        """The tokens that it has room for; None: any number."""
        sizes = [int(self.held[key].shape[2]) for key, slot in self.slots.items() if slot.time == ALL]
        return min(sizes) if sizes else None

    @property
    def bits(self) -> int | None:
        """Of a number in keys and values, where these are quantized."""
        return max((slot.bits for slot in self.slots.values() if slot.bits is not None), default=None)

    @property
    def kind(self) -> str:
        """How it is called in files: "kv", "kv8" or "kv4" for keys and values, "recurrent" for what is overwritten."""
        bits = {slot.bits or "" for slot in self.slots.values() if slot.time is not None}
        kinds = [f"kv{number}" for number in sorted(map(str, bits))]
        return "+".join([*kinds, *(["recurrent"] if self.overwritten else [])])

    def unlike(self, kind: str) -> str | None:
        """How a saved state of another `kind` differs, as the end of a sentence about it; None where it does not."""
        if kind == self.kind:
            return None
        if kind in KEPT and self.kind in KEPT:
            return (
                f"has keys and values {KEPT[kind]}, the model keeps them {KEPT[self.kind]}: load the model with the "
                "same kv_bits (--kv-bits)"
            )
        return f"holds the state of a {kind} model, this one's is {self.kind}"

    @property
    def overwritten(self) -> list[Key]:
        """The slots without time."""
        return [key for key, slot in self.slots.items() if slot.time is None]

    @property
    def must_skip_padding(self) -> bool:
        """Whether the next token of some row is padding, which a slot without time must not take in.

        A recorded pass does not know padding, so such a pass is computed operation by operation.
        """
        if self.starts is None or not self.overwritten:
            return False
        return bool(self.length < self.starts.max())

    @property
    def rings(self) -> list[Key]:
        """The slots of the newest tokens."""
        return [key for key, slot in self.slots.items() if isinstance(slot.time, int)]

    @property
    def buffers(self) -> list[Held]:
        """What a pass writes into, so that one that was recorded finds it again where it lay."""
        return list(self.held.values())

    def window(self, key: Key) -> int:
        """How many of the newest tokens a ring has for each token, itself included."""
        window = self.slots[key].time
        assert isinstance(window, int)
        return window

    # -- files ---------------------------------------------------------------------------------------------------------
    def arrays(self) -> dict[str, Array]:
        """What is worth saving, by name: of slots of all tokens those that there are."""
        found = {}
        for key, name, part in self.parts():
            found[name] = part[:, :, : self.length] if self.slots[key].time == ALL else part
        return found

    def shapes(self, length: int) -> dict[str, tuple[int, ...]]:
        """The shapes that `arrays` would have with so many tokens."""
        found = {}
        for key, name, part in self.parts():
            shape = tuple(part.shape)
            found[name] = (*shape[:2], length, *shape[3:]) if self.slots[key].time == ALL else shape
        return found

    def parts(self) -> Iterator[tuple[Key, str, Array]]:
        """Every array: its slot, how it is called in files, and itself."""
        for key, x in self.held.items():
            for name, part in zip(names_of(key, x), arrays_of(x), strict=True):
                yield key, name, part
