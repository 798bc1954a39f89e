"""Which products with a quantized matrix go by the kernel of triton.py; for the others it is unpacked."""

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

ROWS = 8  # of activations: beyond, unpacking is shared by enough of them
VARIABLE = "MINIGEN_QUANT_KERNEL"
TOLERANCE = {
    torch.float32: 1e-4,
    torch.bfloat16: 4e-2,
    torch.float16: 4e-3,
}  # of the largest number
SMALL = 1e-3  # numbers below are looked at as if they were so large

log = logging.getLogger("minigen")


def wanted() -> bool:
    """What the environment says. Raises UsageError for neither of the two."""
    advice = "1 (the default), or to 0 to unpack quantized weights at each product"
    return read_switch(VARIABLE, ("0", "1"), "1", advice) == "1"


class FewRows:
    """The kernel, until it fails once, or computes something else than unpacking does: it is then not tried again.

    It is compiled on the user's machine, by a compiler that was not at hand when it was written. So the first product
    of each kind is computed in both ways and compared.
    """

    def __init__(self) -> None:
        self.possible = wanted() and find_spec("triton") is not None
        self.checked: set[Any] = set()  # kinds of products that have been compared

    def product(
        self,
        x: Array,
        matrix: tuple[Array, Array, Array],
        bias: Array | None,
        group: int,
        bits: int,
        unpacked: Callable[[], Array],
    ) -> Array | None:
        """x (..., in), the codes in bytes, scales and biases of (out, in) -> (..., out); None: by unpacking.

        `unpacked` computes the same by unpacking.
        """
        codes, scales, biases = matrix
        rows = x.numel() // x.shape[-1]
        if not self.possible or not 0 < rows <= ROWS or x.requires_grad or x.dtype != scales.dtype:
            return None
        try:
            from minigen.backends.torch.triton import quantized_product

            flat = x.reshape(rows, -1).contiguous()
            held = [
                array.reshape(-1, array.shape[-1]).contiguous() for array in (codes, scales, biases)
            ]
            y: Any = quantized_product(flat, *held, bias, group, bits)
            y = y.reshape(*x.shape[:-1], -1)
            kind = (1 << (rows - 1).bit_length(), bits, group, x.dtype, bias is None)
            if kind not in self.checked and not capturing(x):
                self.compare(kind, y, unpacked())
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a compiler, a driver or a library that does not go together, each in its own way
            log.warning(
                "the Triton kernel for quantized weights does not work here (%s): they are unpacked at each product",
                first_line(error),
            )
            self.possible = False
            return None
        return y

    def compare(self, kind: Any, y: Array, want: Array) -> None:
        """Raises ValueError unless both are the same, up to the rounding of their dtype. What is no number tells
        nothing of the kernel."""
        largest = float(want.abs().max())
        if not isfinite(largest):
            return
        apart = float((y.float() - want.float()).abs().max())
        if not apart <= TOLERANCE[y.dtype] * max(largest, SMALL):
            raise ValueError(f"a product is off by {apart:.3g} of {largest:.3g}")
        self.checked.add(kind)


def capturing(x: Array) -> bool:
    """Whether a CUDA graph is being made, in which nothing can be looked at; a trial has gone before it."""
    return bool(x.is_cuda and torch.cuda.is_current_stream_capturing())


@cache
def few_rows() -> FewRows:
    """One for the process."""
    return FewRows()
