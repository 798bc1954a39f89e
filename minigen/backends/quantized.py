"""Numbers in 4 or 8 bits: MLX's layout, as the checkpoints of mlx-lm have it, which both backends read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from minigen.errors import UsageError
from minigen.tree import leaves

Array = Any  # a torch.Tensor or an mlx.core.array
Tree = Any  # nested dicts and lists of arrays

BITS = (4, 8)
GROUPS = (32, 64, 128)
QUANTS = ("8", "4", "mixed")  # what a user asks for; mixed: 4 bits, the embedding and the head in 8


class Quantized(NamedTuple):
    """w (out, in) with w[i, j] = scales[i, j // group] * q[i, j] + biases[i, j // group], q from 0 to 2**bits - 1.

    `packed` (out, in * bits / 32) has 32 / bits of q in each uint32, the first in the lowest bits; `scales` and
    `biases` (out, in / group) are in the dtype that the model computes in. In a parameter tree it is one leaf. Keys and
    values are (B, G, S, D) in the place of (out, in).
    """

    packed: Array
    scales: Array
    biases: Array
    group: int
    bits: int

    @property
    def arrays(self) -> tuple[Array, Array, Array]:
        return self.packed, self.scales, self.biases

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the numbers that it stands for."""
        return (*self.scales.shape[:-1], self.scales.shape[-1] * self.group)


Held = Array | Quantized  # keys or values (B, G, S, D), as a cache holds them


def arrays_of(tree: Tree) -> Iterator[Array]:
    """Every array of a tree, those of quantized matrices too."""
    for leaf in leaves(tree):
        yield from leaf.arrays if isinstance(leaf, Quantized) else (leaf,)


def each(function: Callable[..., Array], *xs: Held) -> Held:
    """`function` of arrays; of quantized ones, what it makes of their codes, their scales and their biases."""
    first = xs[0]
    if not isinstance(first, Quantized):
        return function(*xs)
    packed, scales, biases = map(function, *(x.arrays for x in xs))
    return Quantized(packed, scales, biases, first.group, first.bits)


def tokens(x: Held, first: int, last: int | None = None) -> Held:
    """Those of the tokens from `first` on, before `last` where that is given."""
    return each(lambda part: part[:, :, first:last], x)


def group_for(width: int) -> int:
    """How many numbers of a head share a scale and a bias: 64, 32 or, where neither divides its width, all of them.

    Raises UsageError where that is more than the largest group, or its codes are no whole words of 32 bits.
    """
    for group in (64, 32):
        if width % group == 0:
            return group
    if width % 8 or width > max(GROUPS):
        raise UsageError(
            f"heads of {width} numbers cannot be quantized: it takes a multiple of 32, or of 8 up to {max(GROUPS)}; "
            "leave kv_bits (--kv-bits) out"
        )
    return width
