"""Products of few rows with a quantized matrix on a GPU, by a Triton kernel that reads the codes.

Unpacking writes the whole matrix as floats and reads it again at each step, which makes 4-bit codes
slower than bfloat16. In this kernel a block of threads unpacks in registers what it multiplies, so
that almost nothing but the codes is read.

torch's own products cannot be used. `_weight_int4pack_mm` needs its own tiled layout, bfloat16 and
zero points around the middle code; `_weight_int8pack_mm` needs signed codes with one scale per row.
Our codes have a scale and a bias for each group.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from minigen.backends.base import Array

LINES = 4  # rows of the matrix that a block of threads multiplies
BYTES = 512  # of each that it reads at a time, if x has one row


@triton.jit  # type: ignore[untyped-decorator]
def product(  # type: ignore[no-untyped-def]
    x, codes, scales, biases, bias, y,
    rows, lines, width,
    BITS: tl.constexpr, GROUP: tl.constexpr, HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr, LINES: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    """x (rows, width) times a quantized matrix (lines, width), plus bias -> y (rows, lines).

    codes (lines, width * BITS / 8) are bytes, scales and biases (lines, width / GROUP).
    """
    line = tl.program_id(0) * LINES + tl.arange(0, LINES)
    row = tl.arange(0, ROWS)
    there = line < lines
    here = row < rows
    line64 = line.to(tl.int64)  # a large vocabulary has more than 2**31 numbers
    PER_BYTE: tl.constexpr = 8 // BITS
    size = width // PER_BYTE
    total = tl.zeros((ROWS, LINES), dtype=tl.float32)
    for first in range(0, size, BYTES):
        column = first + tl.arange(0, BYTES)
        inside = column < size
        seen = there[:, None] & inside[None, :]
        byte = tl.load(codes + line64[:, None] * size + column[None, :], mask=seen, other=0)
        group = line64[:, None] * (width // GROUP) + (column * PER_BYTE // GROUP)[None, :]
        scale = tl.load(scales + group, mask=seen, other=0)
        edge = tl.load(biases + group, mask=seen, other=0)
        for part in tl.static_range(PER_BYTE):
            code = (byte >> (part * BITS)) & (2**BITS - 1)
            weight = code.to(tl.float32) * scale.to(tl.float32) + edge.to(tl.float32)
            # Rounded as unpacking does, so that the two ways only differ in the order of sums.
            weight = weight.to(scale.dtype).to(tl.float32)
            source = x + row[:, None] * width + (column * PER_BYTE + part)[None, :]
            number = tl.load(source, mask=here[:, None] & inside[None, :], other=0).to(tl.float32)
            total += tl.sum(number[:, None, :] * weight[None, :, :], axis=2)
    result = total.to(y.dtype.element_ty)
    if HAS_BIAS:  # added to the product after it was rounded
        added = tl.load(bias + line, mask=there, other=0).to(tl.float32)
        result = (result.to(tl.float32) + added[None, :]).to(y.dtype.element_ty)
    target = y + row.to(tl.int64)[:, None] * lines + line[None, :]
    tl.store(target, result, mask=here[:, None] & there[None, :])


# One operation to torch.compile and to traces; capturing a graph records its one launch.
@torch.library.custom_op(  # type: ignore[untyped-decorator]
    "minigen::quantized_product", mutates_args=()
)
def quantized_product(
    x: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    biases: torch.Tensor,
    bias: torch.Tensor | None,
    group: int,
    bits: int,
) -> torch.Tensor:
    """x (rows, width), a matrix as in `product`, bias (lines,) -> (rows, lines), in the dtype of x.

    `x` has few rows.
    """
    (rows, width), lines = x.shape, codes.shape[0]
    y = x.new_empty(rows, lines)
    many = triton.next_power_of_2(rows)
    with torch.cuda.device_of(x):  # Triton launches on the current GPU
        product[(triton.cdiv(lines, LINES),)](
            x, codes, scales, biases, y if bias is None else bias, y,
            rows, lines, width,
            BITS=bits, GROUP=group, HAS_BIAS=bias is not None,
            ROWS=many, LINES=LINES, BYTES=BYTES // many,
        )  # fmt: skip
    return y


@quantized_product.register_fake  # type: ignore[untyped-decorator]
def _(
    x: Array, codes: Array, scales: Array, biases: Array, bias: Array | None, group: int, bits: int
) -> Array:
    return x.new_empty(x.shape[0], codes.shape[0])
