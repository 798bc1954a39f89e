"""A matrix in 4 or 8 bits a weight: MLX's layout, as the checkpoints of mlx-lm have it, which both backends read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from minigen.tree import leaves

Array = Any  # a torch.Tensor or an mlx.core.array
Tree = Any  # nested dicts and lists of arrays

BITS = (4, 8)
GROUPS = (32, 64, 128)
QUANTS = ("8", "4", "mixed")  # what a user asks for; mixed: 4 bits, the embedding and the head in 8


class Quantized(NamedTuple):
    """w (out, in) with w[i, j] = scales[i, j // group] * q[i, j] + biases[i, j // group], q from 0 to 2**bits - 1.

    `packed` (out, in * bits / 32) has 32 / bits of q in each uint32, the first in the lowest bits; `scales` and
    `biases` (out, in / group) are in the dtype that the model computes in. In a parameter tree it is one leaf.
    """

    packed: Array
    scales: Array
    biases: Array
    group: int
    bits: int

    @property
    def arrays(self) -> tuple[Array, Array, Array]:
        return self.packed, self.scales, self.biases


def arrays_of(tree: Tree) -> Iterator[Array]:
    """Every array of a tree, those of quantized matrices too."""
    for leaf in leaves(tree):
        yield from leaf.arrays if isinstance(leaf, Quantized) else (leaf,)
