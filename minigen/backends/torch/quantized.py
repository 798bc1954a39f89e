"""Quantized matrices, keys and values by torch's operations, where no kernel computes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from minigen.backends.base import Array, Quantized
from minigen.backends.quantized import Held
from minigen.backends.torch.few_rows import few_rows

# Numbers that are unpacked at a time, by whether they are on a GPU: a whole matrix would take the
# memory that quantizing saved. On a CPU they stay in its caches.
AT_ONCE = {False: 2**20, True: 2**24}
SMALLEST = 1e-7  # scale, as in MLX: a group of equal numbers has no spread to divide by


def quantize(weight: Array, bits: int, group: int) -> Quantized:
    """As `Backend.quantize`, a number of rows at a time."""
    lines = weight.reshape(-1, weight.shape[-1])
    count = rows_at_once(lines, lines.shape[1])
    parts = [quantize_rows(rows, bits, group) for rows in lines.split(count)]
    packed, scales, biases = (
        torch.cat(pieces).reshape(*weight.shape[:-1], -1) for pieces in zip(*parts, strict=True)
    )
    return Quantized(packed.view(torch.uint32), scales, biases, group, bits)


def quantize_rows(weight: Array, bits: int, group: int) -> tuple[Array, Array, Array]:
    """weight (rows, in) -> codes as bytes (rows, in * bits / 8), scales and biases
    (rows, in / group)."""
    most = 2**bits - 1
    x = weight.float().reshape(weight.shape[0], -1, group)
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    below = low.abs() > high.abs()
    # Divided by a tensor: CUDA replaces the division by a number by a product with its reciprocal,
    # which rounds differently, and the codes must be the same on every device.
    spread = ((high - low) / torch.full_like(low, most)).clamp(min=SMALLEST)
    scale = torch.where(below, spread, -spread)
    edge = torch.where(below, low, high)
    zero = (edge / scale).round()  # the code of 0 is -zero; the scale is adjusted to it
    scale = torch.where(zero != 0, edge / zero, scale)
    bias = torch.where(zero != 0, edge, 0)
    codes = ((x - bias) / scale).round().clamp(0, most).to(torch.uint8).reshape(weight.shape)
    if bits == 4:
        codes = codes[:, 0::2] | codes[:, 1::2] << 4
    return codes.contiguous(), scale[..., 0].to(weight.dtype), bias[..., 0].to(weight.dtype)


def as_held(
    quantize: Callable[[Array, int, int], Quantized], arrays: Sequence[Array], like: Held
) -> Sequence[Held]:
    """Keys and values (B, G, T, D) in the form of the buffer `like`: quantized if it is.

    The arrays have the same shape. All are quantized together, because with few tokens the time
    depends on the number of operations.
    """
    if not isinstance(like, Quantized):
        return arrays
    both = quantize(torch.cat(list(arrays), dim=1), like.bits, like.group)
    heads = arrays[0].shape[1]
    codes, scales, biases = (part.split(heads, dim=1) for part in both.arrays)
    return [
        both._replace(packed=c, scales=s, biases=b)
        for c, s, b in zip(codes, scales, biases, strict=True)
    ]


def unpack(codes: Array, scales: Array, biases: Array, group: int, bits: int) -> Array:
    """Rows of codes as bytes -> their numbers (..., in), in the dtype of the scales.

    They are computed in float32, as torch's kernel widens its operands by itself.
    """
    if bits == 4:
        codes = torch.stack((codes & 15, codes >> 4), -1)
    codes = codes.reshape(*scales.shape, group)
    numbers = torch.addcmul(biases[..., None], codes, scales[..., None])
    return numbers.flatten(-2)


def rows_at_once(array: Array, columns: int) -> int:
    """How many rows to unpack at a time."""
    return max(1, AT_ONCE[array.is_cuda] // columns)


def parts_of(weight: Quantized) -> list[tuple[Array, Array, Array]]:
    """`arrays_of` a matrix, split into parts of as many rows as are unpacked at a time."""
    count = rows_at_once(weight.scales, weight.shape[-1])
    lines = (array.reshape(-1, array.shape[-1]) for array in arrays_of(weight))
    return list(zip(*(array.split(count) for array in lines), strict=True))


def arrays_of(weight: Quantized) -> tuple[Array, Array, Array]:
    """The codes as bytes, the scales and the biases."""
    return weight.packed.view(torch.uint8), weight.scales, weight.biases


def dequantize(weight: Quantized) -> Array:
    """As `Backend.dequantize`."""
    parts = [unpack(*part, weight.group, weight.bits) for part in parts_of(weight)]
    return torch.cat(parts).reshape(weight.shape)


def linear(x: Array, weight: Quantized, bias: Array | None) -> Array:
    """As `Backend.linear`: on a GPU by a kernel for few rows, otherwise by unpacking."""

    def unpacked() -> Array:
        parts = [F.linear(x, unpack(*part, weight.group, weight.bits)) for part in parts_of(weight)]
        y = torch.cat(parts, dim=-1)
        return y if bias is None else y + bias

    if x.is_cuda:
        y = few_rows().product(x, arrays_of(weight), bias, weight.group, weight.bits, unpacked)
        if y is not None:
            return y
    return unpacked()


def embedding(ids: Array, weight: Quantized) -> Array:
    """As `Backend.embedding`; only the rows of `ids` are unpacked."""
    codes, scales, biases = (array[ids] for array in arrays_of(weight))
    return unpack(codes, scales, biases, weight.group, weight.bits)
