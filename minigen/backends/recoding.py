"""Quantized matrices of a checkpoint in the codes that a backend computes with: other codes for the same numbers.

Codes of more bits with the same scales and biases stand for the same numbers. So do 8-bit codes for floats of 4 bits,
each of which is a whole number of half steps between -12 and 12. All of this is exact.
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
HALF_STEPS = np.array([0, 1, 2, 3, 4, 6, 8, 12])  # twice the values of E2M1 above 0
MOST = 12


def recode(ops: Backend, weight: Quantized, mode: str, bits: int) -> Quantized:
    """The same numbers in other codes: affine ones in more bits, or floats of 4 bits as affine codes of 8."""
    if (weight.mode, weight.bits) == (mode, bits):
        return weight
    assert mode == "affine"
    assert bits >= weight.bits
    if weight.mode == "affine":
        return weight._replace(packed=pack(ops, unpack(ops, weight.packed, weight.bits), bits), bits=bits)
    assert (weight.bits, bits) == (4, 8)
    pairs = look_up(ops, ops.astype(ops.asarray(float4_pairs()), "int16"), ops.view(weight.packed, "uint8"))
    scales = scales_of(ops, weight) / 2
    return Quantized(ops.view(pairs, "uint32"), scales, -MOST * scales, weight.group, bits)


def as_floats(ops: Backend, weight: Quantized) -> Array:
    """Its numbers, in the dtype that the model computes in."""
    kind = computed_in(ops.name, weight.mode, weight.bits, weight.group)
    if kind is not None:
        return ops.dequantize(recode(ops, weight, *kind))
    scales = scales_of(ops, weight)
    if weight.mode == "affine":
        assert weight.biases is not None
        codes = ops.astype(unpack(ops, weight.packed, weight.bits), ops.dtype)
        groups = codes.reshape(*scales.shape, weight.group)
        return (groups * scales[..., None] + weight.biases[..., None]).reshape(codes.shape)
    assert weight.mode == "mxfp8"
    values = look_up(ops, ops.asarray(float8()), ops.view(weight.packed, "uint8"))
    return (values.reshape(*scales.shape, weight.group) * scales[..., None]).reshape(values.shape)


def scales_of(ops: Backend, weight: Quantized) -> Array:
    """The scales as numbers, in the dtype that the model computes in."""
    if weight.mode == "affine":
        return weight.scales
    table = float8() if weight.mode == "nvfp4" else powers_of_two()
    return look_up(ops, ops.asarray(table), weight.scales)


# -- codes ------------------------------------------------------------------------------------------------------------
def unpack(ops: Backend, packed: Array, bits: int) -> Array:
    """Words (out, in * bits / 32) -> codes (out, in), a byte each. Eight codes are `bits` bytes."""
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
    """The inverse."""
    eights = codes.reshape(codes.shape[0], -1, 8)
    data = []
    for byte in range(bits):
        places = [(i, i * bits - 8 * byte) for i in range(8)]  # how far up from the byte's lowest bit a code begins
        parts = [
            eights[..., i] << place if place >= 0 else eights[..., i] >> -place
            for i, place in places
            if -bits < place < 8
        ]
        data.append(reduce(or_, parts))
    return ops.view(ops.stack(data, axis=-1).reshape(codes.shape[0], -1), "uint32")


def look_up(ops: Backend, table: Array, codes: Array) -> Array:
    """What a table has for bytes (rows, columns)."""
    rows, columns = codes.shape
    step = max(1, AT_ONCE // columns)
    found = [table[ops.astype(codes[first : first + step], "int32")] for first in range(0, rows, step)]
    return ops.concat(found, axis=0)


# -- tables, by a byte ------------------------------------------------------------------------------------------------
def float4_pairs() -> Table:
    """For two codes of E2M1, the first in the lower bits: MOST plus the half steps of each, in a byte each."""
    steps = MOST + np.concatenate([HALF_STEPS, -HALF_STEPS])
    byte = np.arange(256)
    return np.asarray(steps[byte & 15] | steps[byte >> 4] << 8)


def float8() -> Table:
    """The numbers of E4M3."""
    byte = np.arange(256)
    exponents, fractions = byte >> 3 & 15, (byte & 7) / 8
    sizes = np.where(exponents == 0, fractions * 2.0**-6, (1 + fractions) * 2.0 ** (exponents - 7))
    sizes[byte & 127 == 127] = np.nan
    return np.where(byte & 128, -sizes, sizes)


def powers_of_two() -> Table:
    """The numbers of E8M0. The last is NaN in the standard and infinite in MLX; either way it is no scale."""
    return np.append(2.0 ** (np.arange(255) - 127), np.inf)
