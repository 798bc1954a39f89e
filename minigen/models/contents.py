"""What a state contains: an array for each slot of each layer, and their names in files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from minigen.backends.base import Array
from minigen.backends.quantized import Held, arrays_of
from minigen.layers.slot import ALL, Slot
from minigen.models.buffers import Key, array_names

PRECISIONS = {"kv": "unquantized", "kv8": "in 8 bits", "kv4": "in 4 bits"}  # by the kind of a state


class StateContents:
    """`length` tokens of `batch` rows, in the slots of all layers.

    Attributes:
        slots: The declaration of each slot.
        contents: The array of each slot: (B, G, tokens, D) with time, (B, *shape) without.
        length: The number of tokens that were read, padding counted.
        starts: (B,), the index of the first real token of each row; None: no row is padded.
    """

    slots: Mapping[Key, Slot]
    contents: dict[Key, Held]
    length: int
    starts: npt.NDArray[np.int64] | None

    @property
    def batch(self) -> int:
        """The number of rows."""
        return int(next(iter(self.contents.values())).shape[0])

    @property
    def capacity(self) -> int | None:
        """The number of tokens that there is room for; None: any number."""
        for key, slot in self.slots.items():
            if slot.time == ALL:
                return int(self.contents[key].shape[2])
        return None

    @property
    def bits(self) -> int | None:
        """The bits of each number in keys and values; None where these are not quantized."""
        for slot in self.slots.values():
            if slot.bits is not None:
                return slot.bits  # the same in all slots that have it
        return None

    @property
    def kind(self) -> str:
        """The kind of state, as files name it.

        It is "kv", "kv8" or "kv4" for keys and values, "recurrent" for what is overwritten, and
        several of these joined by "+" where both exist.
        """
        kinds = set()
        for slot in self.slots.values():
            if slot.time is not None:
                kinds.add(f"kv{slot.bits or ''}")
        names = sorted(kinds)
        if self.overwritten:
            names.append("recurrent")
        return "+".join(names)

    def difference_from(self, kind: str) -> str | None:
        """How a saved state of this kind differs, as the end of a sentence; None if it does not."""
        if kind == self.kind:
            return None
        if kind in PRECISIONS and self.kind in PRECISIONS:
            return (
                f"has keys and values {PRECISIONS[kind]}, the model keeps them "
                f"{PRECISIONS[self.kind]}: load the model with the same kv_bits (--kv-bits)"
            )
        return f"holds the state of a {kind} model; this model's state is {self.kind}"

    @property
    def overwritten(self) -> list[Key]:
        """The slots without time, which every pass overwrites."""
        return [key for key, slot in self.slots.items() if slot.time is None]

    @property
    def rings(self) -> list[Key]:
        """The slots that keep the newest tokens only."""
        return [key for key, slot in self.slots.items() if isinstance(slot.time, int)]

    @property
    def must_skip_padding(self) -> bool:
        """Whether the next token of some row is padding, which no slot without time may take in.

        A recorded pass knows nothing of padding, so such a pass is computed operation by operation.
        """
        if self.starts is None or not self.overwritten:
            return False
        return bool(self.length < self.starts.max())

    @property
    def buffers(self) -> list[Held]:
        """All arrays that a pass writes to; a recorded pass depends on their addresses."""
        return list(self.contents.values())

    def window(self, key: Key) -> int:
        """The number of newest tokens that a token looks at in a ring, itself included."""
        window = self.slots[key].time
        assert isinstance(window, int)
        return window

    # -- files -------------------------------------------------------------------------------------
    def arrays(self) -> dict[str, Array]:
        """The arrays to save, by name. A slot of all tokens is cut to the tokens that were read."""
        arrays = {}
        for key, name, array in self.named_arrays():
            if self.slots[key].time == ALL:
                array = array[:, :, : self.length]
            arrays[name] = array
        return arrays

    def shapes(self, length: int) -> dict[str, tuple[int, ...]]:
        """The shapes that `arrays` would have after so many tokens."""
        shapes = {}
        for key, name, array in self.named_arrays():
            shape = tuple(array.shape)
            if self.slots[key].time == ALL:
                shape = (*shape[:2], length, *shape[3:])
            shapes[name] = shape
        return shapes

    def named_arrays(self) -> Iterator[tuple[Key, str, Array]]:
        """Every array, with its slot and its name in files."""
        for key, x in self.contents.items():
            for name, array in zip(array_names(key, x), arrays_of(x), strict=True):
                yield key, name, array
