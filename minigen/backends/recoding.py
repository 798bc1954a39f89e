"""Converts a checkpoint's quantized matrices to codes that a backend computes with, exactly.

Codes of more bits with the same scales and biases represent the same numbers. 4-bit floats become
8-bit integer codes: each of them is a whole number of half steps from -12 to 12.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.backends.base import Array, Backend
from minigen.backends.quantized import Quantized, computed_in

Table = npt.NDArray[Any]

AT_ONCE = 2**24  # codes that are looked up at a time: as an index, each takes four bytes
HALF_STEPS = np.array([0, 1, 2, 3, 4, 6, 8, 12])  # twice the values of E2M1 that are not negative
MOST = 12  # half steps


def recode(ops: Backend, weight: Quantized, mode: str, bits: int) -> Quantized:
    """The same numbers in other codes.

    Affine codes get more bits, or 4-bit floats become 8-bit affine codes; `mode` is then "affine".
    """
    if (weight.mode, weight.bits) == (mode, bits):
        return weight
    assert mode == "affine"
    assert bits >= weight.bits
    if weight.mode == "affine":
        codes = unpack(ops, weight.packed, weight.bits)
        return weight._replace(packed=pack(ops, codes, bits), bits=bits)
    assert (weight.bits, bits) == (4, 8)
    table = ops.astype(ops.asarray(float4_pairs()), "int16")
    pairs = look_up(ops, table, ops.view(weight.packed, "uint8"))
    scales = scales_of(ops, weight) / 2
    return Quantized(ops.view(pairs, "uint32"), scales, -MOST * scales, weight.group, bits)


def as_floats(ops: Backend, weight: Quantized) -> Array:
    """The numbers (out, in), in the dtype that the model computes in."""
    computed = computed_in(ops.name, weight.mode, weight.bits)
    if computed is not None:
        mode, bits = computed
        return ops.dequantize(recode(ops, weight, mode, bits))
    assert weight.mode == "mxfp8"
    scales = scales_of(ops, weight)
    values = look_up(ops, ops.asarray(float8()), ops.view(weight.packed, "uint8"))
    return (values.reshape(*scales.shape, weight.group) * scales[..., None]).reshape(values.shape)


def scales_of(ops: Backend, weight: Quantized) -> Array:
    """The scales as numbers, in the dtype that the model computes in."""
    if weight.mode == "affine":
        return weight.scales
    table = float8() if weight.mode == "nvfp4" else powers_of_two()
    return look_up(ops, ops.asarray(table), weight.scales)


# -- codes ----------------------------------------------------------------------------------------
def unpack(ops: Backend, packed: Array, bits: int) -> Array:
    """Words (out, in * bits / 32) -> codes (out, in), a byte each. Eight fill `bits` bytes."""
    data = ops.view(packed, "uint8").reshape(packed.shape[0], -1, bits)
    codes = []
    for i in range(8):
        byte, shift = divmod(i * bits, 8)
        code = data[..., byte] >> shift
        if shift + bits > 8:
            code = code | data[..., byte + 1] << 8 - shift
        codes.append(code & 2**bits - 1)
    return ops.stack(codes, axis=-1).reshape(packed.shape[0], -1)


def pack(ops: Backend, codes: Array, bits: int) -> Array:
    """The inverse of `unpack`."""
    eights = codes.reshape(codes.shape[0], -1, 8)
    data = []
    for byte in range(bits):
        parts = []
        for i in range(8):
            shift = i * bits - 8 * byte  # how far up from the byte's lowest bit the code begins
            if 0 <= shift < 8:
                parts.append(eights[..., i] << shift)
            elif -bits < shift < 0:
                parts.append(eights[..., i] >> -shift)
        data.append(reduce(or_, parts))
    return ops.view(ops.stack(data, axis=-1).reshape(codes.shape[0], -1), "uint32")


def look_up(ops: Backend, table: Array, codes: Array) -> Array:
    """The entries of `table` for codes (rows, columns), a byte each; same shape."""
    rows, columns = codes.shape
    step = max(1, AT_ONCE // columns)
    parts = []
    for first in range(0, rows, step):
        indices = ops.astype(codes[first : first + step], "int32")
        parts.append(table[indices])
    return ops.concat(parts, axis=0)


# -- tables, indexed by a byte --------------------------------------------------------------------
def float4_pairs() -> Table:
    """For two E2M1 codes, the first in the lower bits: a byte each, MOST plus its half steps."""
    steps = MOST + np.concatenate([HALF_STEPS, -HALF_STEPS])
    byte = np.arange(256)
    return np.asarray(steps[byte & 15] | steps[byte >> 4] << 8)


def float8() -> Table:
    """The values of E4M3."""
    byte = np.arange(256)
    exponents, fractions = byte >> 3 & 15, (byte & 7) / 8
    sizes = np.where(exponents == 0, fractions * 2.0**-6, (1 + fractions) * 2.0 ** (exponents - 7))
    sizes[byte & 127 == 127] = np.nan
    return np.where(byte & 128, -sizes, sizes)


def powers_of_two() -> Table:
    """The values of E8M0. The last is NaN in the standard, infinity in MLX: never a valid scale."""
    return np.append(2.0 ** (np.arange(255) - 127), np.inf)
