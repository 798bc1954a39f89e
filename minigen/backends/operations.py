"""Operations that both backends build from simpler ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minigen.backends.base import Array, Backend
from minigen.backends.quantized import Held, Quantized, arrays_of


def rotate_pair(a: Array, b: Array, cos: Array, sin: Array) -> tuple[Array, Array]:
    """The points (a, b) rotated by the angles whose cosine and sine are given."""
    return a * cos - b * sin, b * cos + a * sin


def rotate_halves(
    ops: Backend, x: Array, cos: Array, sin: Array, rotate: Callable[..., Any] = rotate_pair
) -> Array:
    """`Backend.rotate` from simpler operations; `rotate` is `rotate_pair` or its compiled form."""
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    rotated = rotate(a, b, cos, sin)
    if rest.shape[-1] == 0:
        return ops.concat(rotated, axis=-1)
    return ops.concat([*rotated, rest], axis=-1)


def write_arrays(ops: Backend, buffer: Held, new: Held, position: int) -> Held:
    """`Backend.write` of one buffer from simpler operations; `new` may be quantized already."""
    if isinstance(buffer, Quantized) and not isinstance(new, Quantized):
        source: Held = ops.quantize(new, buffer.bits, buffer.group)
    else:
        source = new
    end = position + new.shape[2]
    for target, part in zip(arrays_of(buffer), arrays_of(source), strict=True):
        target[:, :, position:end] = part
    return buffer


def dequantized(ops: Backend, x: Array | Quantized) -> Array:
    """The numbers of an array, quantized or not."""
    if isinstance(x, Quantized):
        return ops.dequantize(x)
    return x
