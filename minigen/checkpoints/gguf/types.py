"""The types of tensors in GGUF files: how many elements a block has, its bytes, and what its bytes mean.

Most block types are affine: within a group of elements w = scale * code + bias, with whole codes from 0 to 2**bits - 1.
These are kept as they are, in `Quantized` matrices, and no number changes: each scale, bias and product of a scale and
a code fits float32 exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.models.packing import Packing

Bytes = npt.NDArray[np.uint8]
Decoded = tuple[Bytes, npt.NDArray[Any], npt.NDArray[Any] | None]
"""Codes (blocks, elements), scales (blocks, elements / group), and biases like scales, or None where there are none."""


@dataclass(frozen=True)
class TensorType:
    """`packing` and `decode` are None for floats, and `packing` alone for codes that are not affine.

    `dtype` is safetensors' name of what the tensor is read as, where it is not quantized.
    """

    name: str
    elements: int
    block_bytes: int
    dtype: str = "F32"
    packing: Packing | None = None
    decode: Callable[[Any], Decoded] | None = None

    def bytes_of(self, elements: int) -> int:
        return elements // self.elements * self.block_bytes


def nibbles(packed: Bytes) -> Bytes:
    """Bytes (..., n) -> codes (..., 2 n): the lower halves of all bytes, then the upper ones."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


def spread(packed: Bytes, bits: int, run: int) -> Bytes:
    """Codes of `bits` in bytes (blocks, n): in each run of so many bytes the lowest bits of all, then the next."""
    runs = packed.reshape(packed.shape[0], -1, run)
    planes = [(runs >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
    return np.stack(planes, axis=2).reshape(packed.shape[0], -1)


def joined(low: Bytes, high: Bytes, bits: int) -> Bytes:
    """Codes whose lowest `bits` are `low`, and those above `high`."""
    return low | (high << np.uint8(bits))


def bits_of(words: npt.NDArray[np.uint32]) -> Bytes:
    """(blocks,) -> (blocks, 32): the bits of each, the lowest first."""
    return ((words[:, None] >> np.arange(32, dtype=np.uint32)) & 1).astype(np.uint8)


def wide(x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """(blocks,) float16 -> (blocks, 1) float32."""
    return x.astype(np.float32)[:, None]


# -- blocks of 32 -----------------------------------------------------------------------------------------------------
Q4_0 = np.dtype([("scale", "<f2"), ("codes", "u1", 16)])
Q4_1 = np.dtype([("scale", "<f2"), ("bias", "<f2"), ("codes", "u1", 16)])
Q5_0 = np.dtype([("scale", "<f2"), ("high", "<u4"), ("codes", "u1", 16)])
Q5_1 = np.dtype([("scale", "<f2"), ("bias", "<f2"), ("high", "<u4"), ("codes", "u1", 16)])
Q8_0 = np.dtype([("scale", "<f2"), ("codes", "i1", 32)])
MXFP4 = np.dtype([("scale", "u1"), ("codes", "u1", 16)])
IQ4_VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])
IQ4_CODES = (IQ4_VALUES + 127).astype(np.uint8)  # as codes of 8 bits, with a bias of -127 scales


def decode_q4_0(blocks: Any) -> Decoded:
    scale = wide(blocks["scale"])
    return nibbles(blocks["codes"]), scale, -8 * scale


def decode_q4_1(blocks: Any) -> Decoded:
    return nibbles(blocks["codes"]), wide(blocks["scale"]), wide(blocks["bias"])


def decode_q5_0(blocks: Any) -> Decoded:
    scale = wide(blocks["scale"])
    return joined(nibbles(blocks["codes"]), bits_of(blocks["high"]), 4), scale, -16 * scale


def decode_q5_1(blocks: Any) -> Decoded:
    codes = joined(nibbles(blocks["codes"]), bits_of(blocks["high"]), 4)
    return codes, wide(blocks["scale"]), wide(blocks["bias"])


def decode_q8_0(blocks: Any) -> Decoded:
    scale = wide(blocks["scale"])
    return blocks["codes"].view(np.uint8) ^ 128, scale, -128 * scale  # code + 128, without a carry


def decode_mxfp4(blocks: Any) -> Decoded:
    return nibbles(blocks["codes"]), blocks["scale"][:, None], None


def decode_iq4_nl(blocks: Any) -> Decoded:
    scale = wide(blocks["scale"])
    return IQ4_CODES[nibbles(blocks["codes"])], scale, -127 * scale


# -- blocks of 256, whose groups have scales of their own -------------------------------------------------------------
Q2_K = np.dtype([("scales", "u1", 16), ("codes", "u1", 64), ("scale", "<f2"), ("minimum", "<f2")])
Q3_K = np.dtype([("high", "u1", 32), ("codes", "u1", 64), ("scales", "u1", 12), ("scale", "<f2")])
Q4_K = np.dtype([("scale", "<f2"), ("minimum", "<f2"), ("scales", "u1", 12), ("codes", "u1", 128)])
Q5_K = np.dtype([("scale", "<f2"), ("minimum", "<f2"), ("scales", "u1", 12), ("high", "u1", 32), ("codes", "u1", 128)])
Q6_K = np.dtype([("codes", "u1", 128), ("high", "u1", 64), ("scales", "i1", 16), ("scale", "<f2")])
IQ4_XS = np.dtype([("scale", "<f2"), ("high", "<u2"), ("low", "u1", 4), ("codes", "u1", 128)])


def scales_and_minima(packed: Bytes) -> tuple[Bytes, Bytes]:
    """The eight scales and minima of Q4_K and Q5_K, 6 bits each, in 12 bytes.

    The first four of each have a byte of their own; its two upper bits belong to one of the last four, whose lower
    four bits share the third group of four bytes.
    """
    first, second, shared = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, shared & 15 | first >> 6 << 4], axis=1)
    minima = np.concatenate([second & 63, shared >> 4 | second >> 6 << 4], axis=1)
    return scales, minima


def decode_q2_k(blocks: Any) -> Decoded:
    codes = spread(blocks["codes"], 2, 32)
    scales, minima = blocks["scales"] & 15, blocks["scales"] >> 4
    return codes, wide(blocks["scale"]) * scales, -(wide(blocks["minimum"]) * minima)


def decode_q3_k(blocks: Any) -> Decoded:
    codes = joined(spread(blocks["codes"], 2, 32), spread(blocks["high"], 1, 32), 2)
    low, high = blocks["scales"][:, :8], blocks["scales"][:, 8:]
    sixes = joined(nibbles(low), spread(high, 2, 4), 4)
    scale = wide(blocks["scale"]) * (sixes.astype(np.int8) - 32)
    return codes, scale, -4 * scale


def decode_q4_k(blocks: Any) -> Decoded:
    scales, minima = scales_and_minima(blocks["scales"])
    codes = spread(blocks["codes"], 4, 32)
    return codes, wide(blocks["scale"]) * scales, -(wide(blocks["minimum"]) * minima)


def decode_q5_k(blocks: Any) -> Decoded:
    scales, minima = scales_and_minima(blocks["scales"])
    codes = joined(spread(blocks["codes"], 4, 32), spread(blocks["high"], 1, 32), 4)
    return codes, wide(blocks["scale"]) * scales, -(wide(blocks["minimum"]) * minima)


def decode_q6_k(blocks: Any) -> Decoded:
    codes = joined(spread(blocks["codes"], 4, 64), spread(blocks["high"], 2, 32), 4)
    scale = wide(blocks["scale"]) * blocks["scales"]
    return codes, scale, -32 * scale


def decode_iq4_xs(blocks: Any) -> Decoded:
    runs = blocks["codes"].reshape(-1, 8, 16)
    codes = IQ4_CODES[nibbles(runs).reshape(len(blocks), 256)]
    low = np.stack([blocks["low"] & 15, blocks["low"] >> 4], axis=2).reshape(-1, 8)
    high = (blocks["high"][:, None] >> np.arange(0, 16, 2, dtype=np.uint16)) & 3
    scale = wide(blocks["scale"]) * (low.astype(np.int8) + (high << 4).astype(np.int8) - 32)
    return codes, scale, -127 * scale


def affine(name: str, layout: np.dtype[Any], elements: int, bits: int, group: int, decode: Any) -> TensorType:
    def of_bytes(data: Bytes) -> Decoded:
        return decode(data.reshape(-1).view(layout))  # type: ignore[no-any-return]

    return TensorType(name, elements, layout.itemsize, "U32", Packing(bits, group), of_bytes)


def in_blocks(name: str, elements: int, block_bytes: int) -> TensorType:
    """Codes that no matrix of ours holds: they become floats, by the gguf library."""
    return TensorType(name, elements, block_bytes)


FLOAT4 = TensorType(
    "MXFP4", 32, 17, "U32", Packing(4, 32, "mxfp4"), lambda data: decode_mxfp4(data.reshape(-1).view(MXFP4))
)
TYPES: dict[int, TensorType] = {
    0: TensorType("F32", 1, 4, "F32"),
    1: TensorType("F16", 1, 2, "F16"),
    30: TensorType("BF16", 1, 2, "F32"),
    28: TensorType("F64", 1, 8, "F32"),
    2: affine("Q4_0", Q4_0, 32, 4, 32, decode_q4_0),
    3: affine("Q4_1", Q4_1, 32, 4, 32, decode_q4_1),
    6: affine("Q5_0", Q5_0, 32, 5, 32, decode_q5_0),
    7: affine("Q5_1", Q5_1, 32, 5, 32, decode_q5_1),
    8: affine("Q8_0", Q8_0, 32, 8, 32, decode_q8_0),
    10: affine("Q2_K", Q2_K, 256, 2, 16, decode_q2_k),
    11: affine("Q3_K", Q3_K, 256, 3, 16, decode_q3_k),
    12: affine("Q4_K", Q4_K, 256, 4, 32, decode_q4_k),
    13: affine("Q5_K", Q5_K, 256, 5, 32, decode_q5_k),
    14: affine("Q6_K", Q6_K, 256, 6, 16, decode_q6_k),
    20: affine("IQ4_NL", Q4_0, 32, 8, 32, decode_iq4_nl),
    23: affine("IQ4_XS", IQ4_XS, 256, 8, 32, decode_iq4_xs),
    39: FLOAT4,
    16: in_blocks("IQ2_XXS", 256, 66),
    17: in_blocks("IQ2_XS", 256, 74),
    18: in_blocks("IQ3_XXS", 256, 98),
    19: in_blocks("IQ1_S", 256, 50),
    21: in_blocks("IQ3_S", 256, 110),
    22: in_blocks("IQ2_S", 256, 82),
    29: in_blocks("IQ1_M", 256, 56),
    34: in_blocks("TQ1_0", 256, 54),
    35: in_blocks("TQ2_0", 256, 66),
}
