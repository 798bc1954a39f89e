"""Decides which products with a quantized matrix use the kernel of triton.py; others unpack it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from math import isfinite
from typing import Any

import torch

from minigen.backends.base import Array
from minigen.backends.switches import read_switch
from minigen.errors import first_line

ROWS = 8  # rows of activations; with more, one unpacking serves enough of them
VARIABLE = "MINIGEN_QUANT_KERNEL"
# Relative to the largest number of a product:
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 4e-2, torch.float16: 4e-3}
SMALL = 1e-3  # taken as the largest number if that is smaller

log = logging.getLogger("minigen")


def wanted() -> bool:
    """Whether the environment allows the kernel. Raises UsageError for neither 0 nor 1."""
    advice = "1 (the default), or to 0 to unpack quantized weights at each product"
    return read_switch(VARIABLE, ("0", "1"), "1", advice) == "1"


class FewRows:
    """Uses the kernel until it fails once, or differs from unpacking; then it is not tried again.

    It is compiled on the user's machine, where it could not be tested beforehand. So the first
    product of each kind is computed in both ways and compared.
    """

    def __init__(self) -> None:
        self.possible = wanted() and find_spec("triton") is not None
        self.checked: set[Any] = set()  # kinds of products that were compared

    def product(
        self,
        x: Array,
        matrix: tuple[Array, Array, Array],
        bias: Array | None,
        group: int,
        bits: int,
        unpacked: Callable[[], Array],
    ) -> Array | None:
        """x (..., in) times a quantized matrix (out, in), plus bias -> (..., out).

        `matrix` has the codes as bytes, the scales and the biases. `unpacked` computes the product
        by unpacking. Returns None if the kernel cannot be used.
        """
        codes, scales, biases = matrix
        rows = x.numel() // x.shape[-1]
        if not self.possible or not 0 < rows <= ROWS:
            return None
        if x.requires_grad or x.dtype != scales.dtype:
            return None
        try:
            from minigen.backends.torch.triton import quantized_product

            flat = x.reshape(rows, -1).contiguous()
            lines = [
                array.reshape(-1, array.shape[-1]).contiguous() for array in (codes, scales, biases)
            ]
            y: Any = quantized_product(flat, *lines, bias, group, bits)
            y = y.reshape(*x.shape[:-1], -1)
            kind = (1 << (rows - 1).bit_length(), bits, group, x.dtype, bias is None)
            if kind not in self.checked and not capturing(x):
                self.compare(kind, y, unpacked())
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # compiler, driver and libraries fail in many ways
            log.warning(
                "the Triton kernel for quantized weights does not work here (%s): "
                "they are unpacked at each product",
                first_line(error),
            )
            self.possible = False
            return None
        return y

    def compare(self, kind: Any, y: Array, want: Array) -> None:
        """Raises ValueError if both differ by more than the rounding of their dtype."""
        largest = float(want.abs().max())
        if not isfinite(largest):  # says nothing about the kernel
            return
        difference = float((y.float() - want.float()).abs().max())
        if not difference <= TOLERANCE[y.dtype] * max(largest, SMALL):  # also if it is NaN
            raise ValueError(f"a product is off by {difference:.3g} of {largest:.3g}")
        self.checked.add(kind)


def capturing(x: Array) -> bool:
    """Whether a CUDA graph is being captured, during which no number can be read.

    A trial run before each capture has compared the kernel already.
    """
    return bool(x.is_cuda and torch.cuda.is_current_stream_capturing())


@cache
def few_rows() -> FewRows:
    """The one of this process."""
    return FewRows()
