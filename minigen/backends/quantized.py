"""Numbers in few bits: MLX's layout, as the checkpoints of mlx-lm have it, which both backends read."""

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


class Mode(NamedTuple):
    """The bits of a code, and the sizes of a group, that a way to quantize has; the first of each is its default."""

    bits: tuple[int, ...]
    groups: tuple[int, ...]


# What mlx-lm writes, and affine groups of 16, which GGUF files have. The others than affine have no biases: a code is a float of 4 bits (E2M1) or 8 (E4M3), and a scale
# a byte, a power of two (E8M0; the formats of OCP Microscaling 1.0) or with nvfp4 E4M3 too.
MODES = {
    "affine": Mode((4, 1, 2, 3, 5, 6, 8), (64, 32, 128, 16)),
    "mxfp4": Mode((4,), (32,)),
    "mxfp8": Mode((8,), (32,)),
    "nvfp4": Mode((4,), (16,)),
}
# The bits that each backend computes with, by mode. It holds what a checkpoint has in others as recoding.py makes it.
COMPUTED: dict[str, dict[str, tuple[int, ...]]] = {
    "torch": {"affine": (4, 8)},
    "mlx": {"affine": (2, 3, 4, 5, 6, 8), "mxfp4": (4,), "mxfp8": (8,), "nvfp4": (4,)},
}


NO_SMALL_GROUPS = ("mlx",)  # backends that compute with affine groups of GROUPS alone


def computed_in(backend: str, mode: str, bits: int, group: int = 64) -> tuple[str, int] | None:
    """The mode and the bits that a backend holds such codes in, without loss; None: as floats."""
    own = COMPUTED[backend]
    if mode == "affine" and group not in GROUPS and backend in NO_SMALL_GROUPS:
        return None
    if mode in own:
        return mode, min(count for count in own[mode] if count >= bits)
    return ("affine", 8) if MODES[mode].bits == (4,) else None


class Quantized(NamedTuple):
    """w (out, in) with w[i, j] = scales[i, j // group] * q[i, j] + biases[i, j // group], q from 0 to 2**bits - 1.

    `packed` (out, in * bits / 32), uint32, has the codes q of a row one after the other, the first in the lowest bits;
    those of 3, 5 and 6 bits lie across words. `scales` and `biases` (out, in / group) are in the dtype that the model
    computes in. In a parameter tree it is one leaf. Keys and values are (B, G, S, D) in the place of (out, in).

    In the other modes q is a float of so few bits, `scales` are bytes (see MODES), and `biases` is None.
    """

    packed: Array
    scales: Array
    biases: Array | None
    group: int
    bits: int
    mode: str = "affine"

    @property
    def arrays(self) -> tuple[Array, ...]:
        return self[:2] if self.biases is None else self[:3]

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
    arrays = list(map(function, *(x.arrays for x in xs)))
    return first._replace(packed=arrays[0], scales=arrays[1], biases=arrays[2] if len(arrays) > 2 else None)


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
