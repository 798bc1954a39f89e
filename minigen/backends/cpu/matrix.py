"""Weights as a kernel is told of them: by the address of their numbers. Imports torch, and not numba."""

from __future__ import annotations

from typing import NamedTuple

import torch

from minigen.backends.base import Array, Quantized

KINDS = {torch.float32: 0, torch.bfloat16: 1}  # as in dots.py, which imports numba
PACKED_BITS = (4, 8)  # the codes that kernels unpack
GROUP_STEP = 32  # kernels read a group of quantized weights in steps of so many codes
SHORT = (8, 16)  # bits and group that are one step of half the width


class Matrix(NamedTuple):
    """The kind of a matrix (rows, cols), the addresses of its parts, and the dtype of the activations it goes with.

    `kind` is one of `KINDS`, or the bits of quantized weights; those have scales and biases of `scale_kind`, one for
    each `group` of a row. For other weights both addresses are 0 and `group` is 1.
    """

    kind: int
    at: int
    scales: int
    biases: int
    scale_kind: int
    group: int
    rows: int
    cols: int
    bytes: int
    dtype: torch.dtype

    @classmethod
    def of(cls, weight: Array | Quantized) -> Matrix | None:
        """None for what no kernel takes."""
        arrays = weight.arrays if isinstance(weight, Quantized) else (weight,)
        dtype = arrays[-1].dtype
        if dtype not in KINDS or not all(x.ndim == 2 and x.is_contiguous() for x in arrays):
            return None
        size = sum(x.numel() * x.itemsize for x in arrays)
        rows, cols = arrays[0].shape
        if not isinstance(weight, Quantized):
            return cls(KINDS[dtype], weight.data_ptr(), 0, 0, 0, 1, rows, cols, size, dtype)
        whole = weight.group % GROUP_STEP == 0 or (weight.bits, weight.group) == SHORT
        if weight.bits not in PACKED_BITS or not whole:
            return None
        packed, scales, biases = (x.data_ptr() for x in arrays)
        cols = cols * 32 // weight.bits
        return cls(weight.bits, packed, scales, biases, KINDS[dtype], weight.group, rows, cols, size, dtype)

    def where(self) -> tuple[int, int, int, int, int, int]:
        """The first arguments of the kernels that take a matrix."""
        return self.kind, self.at, self.scales, self.biases, self.scale_kind, self.group
