"""Keys and values as the kernels of a recorded step are told of them."""

from __future__ import annotations

from typing import NamedTuple

from minigen.backends.base import Quantized
from minigen.backends.cpu.matrix import KINDS
from minigen.backends.cpu.vectors import LANES
from minigen.backends.quantized import Held, arrays_of


class UnrecordableError(Exception):
    """The model does something that no instruction stands for."""


class Cache(NamedTuple):
    """Keys or values (B, G, S, D): their kind; where their numbers are, or their codes, scales and biases; the kind of
    the scales, and how many numbers share one; how many tokens lie from row to row and from head to head."""

    kind: int
    at: tuple[int, int, int]
    scale_kind: int
    group: int
    lane: int
    step: int

    @classmethod
    def of(cls, x: Held) -> Cache:
        """Raises UnrecordableError for what no kernel takes."""
        arrays = tuple(arrays_of(x))
        steps = {(part.stride(0) // part.shape[3], part.stride(1) // part.shape[3]) for part in arrays}
        whole = all(part.stride()[2:] == (part.shape[3], 1) for part in arrays)
        if len(steps) > 1 or not whole or arrays[-1].dtype not in KINDS:
            raise UnrecordableError("a cache of this kind")
        kind, places = KINDS[arrays[-1].dtype], [part.data_ptr() for part in arrays]
        if not isinstance(x, Quantized):
            return cls(kind, (places[0], 0, 0), 0, 1, *steps.pop())
        if x.group % (2 * LANES):
            raise UnrecordableError(f"groups of {x.group}")
        return cls(x.bits, (places[0], places[1], places[2]), kind, x.group, *steps.pop())
