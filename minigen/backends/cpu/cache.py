"""Keys and values as the kernels of a recorded step are told of them."""

from __future__ import annotations

from typing import NamedTuple

from minigen.backends.base import Quantized
from minigen.backends.cpu.instructions import Storage
from minigen.backends.cpu.matrix import KINDS
from minigen.backends.cpu.vectors import LANES
from minigen.backends.quantized import Held, arrays_of


class UnrecordableError(Exception):
    """The model does something that no instruction stands for."""


class Cache(NamedTuple):
    """Keys or values (lanes, heads, tokens, size): how they are stored, and how many tokens lie from lane to lane and
    from head to head."""

    storage: Storage
    lane_stride: int
    head_stride: int

    @classmethod
    def of(cls, x: Held) -> Cache:
        """Raises UnrecordableError for what no kernel takes."""
        arrays = tuple(arrays_of(x))
        strides = {
            (part.stride(0) // part.shape[3], part.stride(1) // part.shape[3]) for part in arrays
        }
        whole = all(part.stride()[2:] == (part.shape[3], 1) for part in arrays)
        if len(strides) > 1 or not whole or arrays[-1].dtype not in KINDS:
            raise UnrecordableError("a cache of this kind")
        kind = KINDS[arrays[-1].dtype]
        addresses = [part.data_ptr() for part in arrays]
        if not isinstance(x, Quantized):
            return cls(Storage(kind, addresses[0]), *strides.pop())
        if x.group % (2 * LANES):
            raise UnrecordableError(f"groups of {x.group}")
        packed, scales, biases = addresses
        return cls(Storage(x.bits, packed, scales, biases, kind, x.group), *strides.pop())

    def is_like(self, other: Cache) -> bool:
        """Whether both have one form and the same strides."""
        return self.storage.form == other.storage.form and self[1:] == other[1:]
