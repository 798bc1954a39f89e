"""Quantized matrices, keys and values in torch, by plain operations: what the kernels of cpu.py do not take."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from minigen.backends.base import Array, Quantized
from minigen.backends.quantized import Held
from minigen.backends.torch.few_rows import few_rows

# Numbers of a matrix that are unpacked at a time, by whether it is on a GPU: the whole would take the memory that was
# saved. On a CPU they stay in its caches.
AT_ONCE = {False: 2**20, True: 2**24}
SMALLEST = 1e-7  # of a scale, as in MLX: a group of equal numbers has no spread to divide by


def quantize(weight: Array, bits: int, group: int) -> Quantized:
    lines = weight.reshape(-1, weight.shape[-1])
    parts = [
        quantize_rows(rows, bits, group)
        for rows in lines.split(rows_at_once(lines, lines.shape[1]))
    ]
    packed, scales, biases = (
        torch.cat(some).reshape(*weight.shape[:-1], -1) for some in zip(*parts, strict=True)
    )
    return Quantized(packed.view(torch.uint32), scales, biases, group, bits)


def quantize_rows(weight: Array, bits: int, group: int) -> tuple[Array, Array, Array]:
    """The codes of some rows in bytes, their scales and biases."""
    most = 2**bits - 1
    x = weight.float().reshape(weight.shape[0], -1, group)
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    below = low.abs() > high.abs()
    # Divided by a tensor: CUDA makes a quotient by a number into a product with its reciprocal, which rounds to others,
    # and the codes are the same on every device.
    spread = ((high - low) / torch.full_like(low, most)).clamp(min=SMALLEST)
    scale = torch.where(below, spread, -spread)
    edge = torch.where(below, low, high)
    zero = (edge / scale).round()  # the code of 0 is -zero: the scale is made to fit it
    scale = torch.where(zero != 0, edge / zero, scale)
    bias = torch.where(zero != 0, edge, 0)
    codes = ((x - bias) / scale).round().clamp(0, most).to(torch.uint8).reshape(weight.shape)
    if bits == 4:
        codes = codes[:, 0::2] | codes[:, 1::2] << 4
    return codes.contiguous(), scale[..., 0].to(weight.dtype), bias[..., 0].to(weight.dtype)


def as_held(
    quantize: Callable[[Array, int, int], Quantized], arrays: Sequence[Array], like: Held
) -> Sequence[Held]:
    """Keys and values (B, G, T, D), which are alike, as a buffer has them: in its bits and groups where it is
    quantized. They are quantized side by side, as few tokens cost by the operation."""
    if not isinstance(like, Quantized):
        return arrays
    both = quantize(torch.cat(list(arrays), dim=1), like.bits, like.group)
    parts = zip(*(part.split(arrays[0].shape[1], dim=1) for part in both.arrays), strict=True)
    return [
        both._replace(packed=packed, scales=scales, biases=biases)
        for packed, scales, biases in parts
    ]


def unpack(codes: Array, scales: Array, biases: Array, group: int, bits: int) -> Array:
    """Rows of codes in bytes -> their numbers, computed in float32: a kernel widens what it reads by itself."""
    if bits == 4:
        codes = torch.stack((codes & 15, codes >> 4), -1)
    numbers = torch.addcmul(
        biases[..., None], codes.reshape(*scales.shape, group), scales[..., None]
    )
    return numbers.flatten(-2)


def rows_at_once(array: Array, columns: int) -> int:
    return max(1, AT_ONCE[array.is_cuda] // columns)


def parts_of(weight: Quantized) -> list[tuple[Array, Array, Array]]:
    """`arrays_of` as many rows as are unpacked at a time, one part after the other."""
    count = rows_at_once(weight.scales, weight.shape[-1])
    lines = (array.reshape(-1, array.shape[-1]) for array in arrays_of(weight))
    return list(zip(*(array.split(count) for array in lines), strict=True))


def arrays_of(weight: Quantized) -> tuple[Array, Array, Array]:
    """The codes in bytes, the scales and the biases."""
    return weight.packed.view(torch.uint8), weight.scales, weight.biases


def dequantize(weight: Quantized) -> Array:
    return torch.cat(
        [unpack(*part, weight.group, weight.bits) for part in parts_of(weight)]
    ).reshape(weight.shape)


def linear(x: Array, weight: Quantized, bias: Array | None) -> Array:
    def unpacked() -> Array:
        parts = [F.linear(x, unpack(*part, weight.group, weight.bits)) for part in parts_of(weight)]
        y = torch.cat(parts, dim=-1)
        return y if bias is None else y + bias

    y = None
    if x.is_cuda:
        y = few_rows().product(x, arrays_of(weight), bias, weight.group, weight.bits, unpacked)
    return unpacked() if y is None else y


def embedding(ids: Array, weight: Quantized) -> Array:
    """The rows that are asked for alone are unpacked."""
    codes, scales, biases = (array[ids] for array in arrays_of(weight))
    return unpack(codes, scales, biases, weight.group, weight.bits)
