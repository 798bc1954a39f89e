"""Quantized numbers in the layout of MLX and of mlx-lm's checkpoints, which both backends read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from minigen.errors import UsageError
from minigen.tree import leaves

Array = Any  # a torch.Tensor or an mlx.core.array
Tree = Any  # nested dicts and lists of arrays

BITS = (4, 8)
GROUPS = (32, 64, 128)
QUANTS = ("8", "4", "mixed")  # settings of users; mixed: 4 bits, embedding and head in 8


class Mode(NamedTuple):
    """The bits per code and the group sizes of a way to quantize; the first is the default."""

    bits: tuple[int, ...]
    groups: tuple[int, ...]


# The modes that mlx-lm writes. All but "affine" have no biases: a code is a float of 4 bits (E2M1)
# or 8 bits (E4M3). A scale is a byte: in nvfp4 E4M3, otherwise a power of two (E8M0; the formats
# are those of OCP Microscaling 1.0).
MODES = {
    "affine": Mode((4, 1, 2, 3, 5, 6, 8), (64, 32, 128)),
    "mxfp4": Mode((4,), (32,)),
    "mxfp8": Mode((8,), (32,)),
    "nvfp4": Mode((4,), (16,)),
}
# The bits that each backend computes with, by mode. recoding.py converts other codes of a
# checkpoint.
COMPUTED: dict[str, dict[str, tuple[int, ...]]] = {
    "torch": {"affine": (4, 8)},
    "mlx": {"affine": (2, 3, 4, 5, 6, 8), "mxfp4": (4,), "mxfp8": (8,), "nvfp4": (4,)},
}


def computed_in(backend: str, mode: str, bits: int) -> tuple[str, int] | None:
    """The mode and bits in which a backend stores codes of `mode` and `bits`, without loss.

    None: the backend stores them as floats.
    """
    own = COMPUTED[backend]
    if mode in own:
        return mode, min(count for count in own[mode] if count >= bits)
    if MODES[mode].bits == (4,):
        return "affine", 8
    return None


class Quantized(NamedTuple):
    """A matrix w (out, in) with w[i, j] = scales[i, j // group] * q[i, j] + biases[i, j // group].

    The codes q are integers from 0 to 2**bits - 1. `packed` (out, in * bits / 32), uint32, has the
    codes of a row one after the other, the first in the lowest bits; codes of 3, 5 and 6 bits may
    cross words. `scales` and `biases` (out, in / group) have the dtype that the model computes in.
    In a parameter tree it is one leaf. For keys and values, (out, in) is (B, G, S, D).

    In the modes other than "affine", q is a float of `bits` bits, `scales` are bytes (see MODES),
    and `biases` is None.
    """

    packed: Array
    scales: Array
    biases: Array | None
    group: int
    bits: int
    mode: str = "affine"

    @property
    def arrays(self) -> tuple[Array, ...]:
        """Codes, scales and, if there are any, biases."""
        return self[:2] if self.biases is None else self[:3]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of w."""
        return (*self.scales.shape[:-1], self.scales.shape[-1] * self.group)


Held = Array | Quantized  # keys or values (B, G, S, D) as a cache stores them


def arrays_of(tree: Tree) -> Iterator[Array]:
    """Every array of a tree, including those of quantized matrices."""
    for leaf in leaves(tree):
        if isinstance(leaf, Quantized):
            yield from leaf.arrays
        else:
            yield leaf


def each(function: Callable[..., Array], *xs: Held) -> Held:
    """Applies `function` to arrays, or to the codes, scales and biases of quantized ones."""
    first = xs[0]
    if not isinstance(first, Quantized):
        return function(*xs)
    packed, scales, *biases = map(function, *(x.arrays for x in xs))
    return first._replace(packed=packed, scales=scales, biases=biases[0] if biases else None)


def tokens(x: Held, first: int, last: int | None = None) -> Held:
    """The keys or values of the tokens from `first` up to, but without, `last` (None: the end)."""
    return each(lambda part: part[:, :, first:last], x)


def group_for(width: int) -> int:
    """How many numbers of a head share a scale and a bias.

    64, or 32, or the whole head if neither divides its width. Raises UsageError if a whole head is
    larger than the largest group, or its codes do not fill words of 32 bits.
    """
    for group in (64, 32):
        if width % group == 0:
            return group
    if width % 8 or width > max(GROUPS):
        raise UsageError(
            f"heads of {width} numbers cannot be quantized: the width must be a multiple of 32, "
            f"or of 8 up to {max(GROUPS)}; leave out kv_bits (--kv-bits)"
        )
    return width
