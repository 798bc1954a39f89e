"""What a model must do for a token: the floating-point operations, and the bytes that it reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from minigen.decoder import Decoder
from minigen.families.family import Architecture
from minigen.layers.attention import Attention
from minigen.tree import flatten

ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}


def parameters(architecture: Architecture) -> int:
    return sum(int(np.prod(param.shape)) for param in flatten(architecture.shapes()).values())


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
    """What one token meets: `used` numbers of weights are read, of which it is multiplied with `body` and `head`.

    Not used are parameters of which a token looks up one row: positions, and the embedding unless it is the head too.
    """

    used: int
    body: int
    head: int
    attentions: tuple[Attention, ...]  # one a layer

    @classmethod
    def of(cls, architecture: Architecture) -> Costs:
        shapes = {path: param.shape for path, param in flatten(architecture.shapes()).items()}
        head = "head.weight" if "head.weight" in shapes else "embedding.weight"
        sizes = {
            path: int(np.prod(shape))
            for path, shape in shapes.items()
            if path == head or path not in ("embedding.weight", "positions.weight")
        }
        matrices = sum(size for path, size in sizes.items() if len(shapes[path]) == 2)
        blocks = architecture.blocks if isinstance(architecture, Decoder) else ()
        return cls(sum(sizes.values()), matrices - sizes[head], sizes[head], tuple(block.attention for block in blocks))

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

    def bytes_read(self, length: int, new: int, batch: int, dtype: str) -> int:
        """Bytes that such a pass reads at least: every weight used, once for the batch, and each row's keys and values.

        The rows that are looked up, a recurrent state and what is written are too little to count.
        """
        numbers = self.used
        for attention in self.attentions:
            keys = seen(attention, length + 1) + new - 1
            numbers += batch * 2 * attention.kv_heads * attention.head_dim * keys
        return numbers * ITEMSIZE[dtype]


def seen(attention: Attention, tokens: int) -> int:
    """How many of so many tokens, itself among them, the last one sees."""
    return tokens if attention.window is None else min(tokens, attention.window)


@dataclass(frozen=True)
class Limit:
    """The least time that a measurement can take: `seconds`, and whether "memory" or "compute" takes most of it.

    `bytes_read` and `flops` are those of all its passes.
    """

    seconds: float
    by: str
    bytes_read: int
    flops: int


def limit(
    costs: Costs, passes: Iterable[tuple[int, int]], batch: int, dtype: str, bandwidth: float, peak: float
) -> Limit:
    """The limit of passes (length, new), each of which takes what the slower of memory and arithmetic needs.

    That is the roofline model (Williams et al. 2009): `bandwidth` in bytes and `peak` in operations a second.
    """
    by, read, flops = {"memory": 0.0, "compute": 0.0}, 0, 0
    for length, new in passes:
        these = costs.bytes_read(length, new, batch, dtype), costs.flops(length, new, batch)
        memory, compute = these[0] / bandwidth, these[1] / peak
        by["memory" if memory >= compute else "compute"] += max(memory, compute)
        read, flops = read + these[0], flops + these[1]
    return Limit(sum(by.values()), max(by, key=lambda name: by[name]), read, flops)
