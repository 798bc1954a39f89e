"""Weights as a kernel is told of them: by the address of their numbers. Imports torch, and not numba."""

from __future__ import annotations

from typing import NamedTuple

import torch

from minigen.backends.base import Array, Quantized
from minigen.backends.cpu.instructions import Storage

KINDS = {torch.float32: 0, torch.bfloat16: 1}  # as in dots.py, which imports numba
PACKED_BITS = (4, 8)  # the codes that kernels unpack
GROUP_STEP = 32  # kernels read a group of quantized weights in steps of so many codes
SHORT = (8, 16)  # bits and group that are one step of half the width


class Matrix(NamedTuple):
    """A matrix (rows, cols): how it is stored, its bytes, and the dtype of the activations it goes with."""

    storage: Storage
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
        addresses = [x.data_ptr() for x in arrays]
        if not isinstance(weight, Quantized):
            return cls(Storage(KINDS[dtype], addresses[0]), rows, cols, size, dtype)
        whole_steps = weight.group % GROUP_STEP == 0 or (weight.bits, weight.group) == SHORT
        if weight.bits not in PACKED_BITS or not whole_steps:
            return None
        packed, scales, biases = addresses
        storage = Storage(weight.bits, packed, scales, biases, KINDS[dtype], weight.group)
        return cls(storage, rows, cols * 32 // weight.bits, size, dtype)
