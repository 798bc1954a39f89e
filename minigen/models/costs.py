"""What a model must do for a token: the floating-point operations, and the bytes that it reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from minigen.backends.base import NUMBER_BYTES
from minigen.backends.quantized import group_for
from minigen.layers.attention import Attention
from minigen.models.architecture import Architecture, Trainable
from minigen.models.packing import Packing, Packings
from minigen.tree import flatten

# Bytes of a number. Quantised ones with the scales that llama.cpp's Q8_0 and Q4_0 have; no peer's take less.
ITEMSIZE: dict[str, float] = {**NUMBER_BYTES, "8-bit": 8.5 / 8, "4-bit": 4.5 / 8}


def parameters(architecture: Trainable) -> int:
    return sum(int(np.prod(param.shape)) for param in flatten(architecture.shapes()).values())


def held(shapes: Mapping[str, tuple[int, ...]], packings: Packings) -> tuple[int, int]:
    """What parameters of these shapes are held as: numbers in the dtype that is computed in, and bytes of codes."""
    found = [numbers_and_codes(shape, packings.get(path)) for path, shape in shapes.items()]
    return sum(numbers for numbers, _ in found), sum(codes for _, codes in found)


def numbers_and_codes(shape: tuple[int, ...], packing: Packing | None) -> tuple[int, int]:
    """The same of one array, quantized or not."""
    size = int(np.prod(shape))
    return (size, 0) if packing is None else packing.memory(size)


def weights_bytes(architecture: Architecture, packings: Packings, dtype: str) -> int:
    """Of all parameters together."""
    shapes = {path: param.shape for path, param in flatten(architecture.shapes()).items()}
    numbers, codes = held(shapes, packings)
    return round(numbers * ITEMSIZE[dtype]) + codes


def training_flops(architecture: Architecture, context: int) -> float:
    """Operations a token of a training step, forward and backward: 6 N + 12 L C T (Chowdhery et al. 2022, appendix B).

    N: weights that a token is multiplied with. L layers, C the width of all heads together, T the context: attention,
    counted as if every token saw all T, as is the custom. Recurrent models: 6 N.
    """
    costs = Costs.of(architecture)
    width = sum(attention.heads * attention.head_dim for attention in costs.attentions)
    return 6.0 * (costs.body + costs.head) + 12.0 * width * context


@dataclass(frozen=True)
class Costs:
    """What one token meets: `used` numbers of weights are read, and `codes` bytes of quantized ones; it is multiplied
    with `body` and `head` weights.

    Not read are parameters of which a token looks up one row: positions, and the embedding unless it is the head too.
    """

    used: int
    body: int
    head: int
    attentions: tuple[Attention, ...]  # one a layer
    codes: int = 0
    kv_bits: int | None = None

    @classmethod
    def of(cls, architecture: Architecture, packings: Packings | None = None) -> Costs:
        shapes = {path: param.shape for path, param in flatten(architecture.shapes()).items()}
        head = "head.weight" if "head.weight" in shapes else "embedding.weight"
        outside = {"embedding.weight", "positions.weight"} - {head}
        read = {path: shape for path, shape in shapes.items() if path not in outside}
        matrices = sum(int(np.prod(shape)) for shape in read.values() if len(shape) == 2)
        numbers, codes = held(read, packings or {})
        last = int(np.prod(read[head]))
        return cls(numbers, matrices - last, last, architecture.attentions, codes, architecture.kv_bits)

    def flops(self, length: int, new: int, batch: int) -> int:
        """Operations of one pass over `new` tokens a row after `length` others, with logits after the last alone.

        2 a weight and token, the head for one token of a row, and 4 C a key that a token sees, those before it and
        itself.
        """
        total = 2 * (self.body * new + self.head)
        for attention in self.attentions:
            keys = sum(seen(attention, at + 1) for at in range(length, length + new))
            total += 4 * attention.heads * attention.head_dim * keys
        return batch * total

    def bytes_read(self, length: int, new: int, batch: int, dtype: str) -> float:
        """Bytes that such a pass reads at least: every weight used, once for the batch, and each row's keys and values.

        The rows that are looked up, a recurrent state and what is written are too little to count.
        """
        numbers, codes = self.used, self.codes
        for attention in self.attentions:
            keys = seen(attention, length + 1) + new - 1
            shape = (batch, 2, attention.kv_heads, keys, attention.head_dim)
            packing = None if self.kv_bits is None else Packing(self.kv_bits, group_for(attention.head_dim))
            more = numbers_and_codes(shape, packing)
            numbers, codes = numbers + more[0], codes + more[1]
        return numbers * ITEMSIZE[dtype] + codes


def seen(attention: Attention, tokens: int) -> int:
    """How many of so many tokens, itself among them, the last one sees."""
    return tokens if attention.window is None else min(tokens, attention.window)


@dataclass(frozen=True)
class Limit:
    """The least time that a measurement can take: `seconds`, and whether "memory" or "compute" takes most of it.

    `bytes_read` and `flops` are those of all its passes; None: not counted.
    """

    seconds: float
    by: str
    bytes_read: float | None
    flops: float


def limit(
    costs: Costs, passes: Iterable[tuple[int, int]], batch: int, dtype: str, bandwidth: float, peak: float
) -> Limit:
    """The limit of passes (length, new), each of which takes what the slower of memory and arithmetic needs.

    That is the roofline model (Williams et al. 2009): `bandwidth` in bytes and `peak` in operations a second.
    """
    by, read, flops = {"memory": 0.0, "compute": 0.0}, 0.0, 0
    for length, new in passes:
        these = costs.bytes_read(length, new, batch, dtype), costs.flops(length, new, batch)
        memory, compute = these[0] / bandwidth, these[1] / peak
        by["memory" if memory >= compute else "compute"] += max(memory, compute)
        read, flops = read + these[0], flops + these[1]
    return Limit(sum(by.values()), max(by, key=lambda name: by[name]), read, flops)


def training_limit(architecture: Architecture, context: int, batch: int, peak: float) -> Limit:
    """The limit of a training step on (batch, context) tokens, by its operations alone."""
    flops = training_flops(architecture, context) * batch * context
    return Limit(flops / peak, "compute", None, flops)
