"""Which products with a quantized matrix go by the kernel of torch_triton.py; for the others it is unpacked."""

from __future__ import annotations

import logging
import os
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch

from minigen.backends.base import Array
from minigen.errors import UsageError, first_line

ROWS = 8  # of activations: beyond, unpacking is shared by enough of them
VARIABLE = "MINIGEN_QUANT_KERNEL"
log = logging.getLogger("minigen")


def wanted() -> bool:
    """What the environment says. Raises UsageError for neither of the two."""
    said = os.environ.get(VARIABLE, "1")
    if said not in ("0", "1"):
        raise UsageError(
            f"{VARIABLE} is {said!r}: set it to 1 (the default), or to 0 to unpack quantized weights at each product"
        )
    return said == "1"


class FewRows:
    """The kernel, until it fails once: it is then not tried again."""

    def __init__(self) -> None:
        self.possible = wanted() and find_spec("triton") is not None

    def product(
        self, x: Array, matrix: tuple[Array, Array, Array], bias: Array | None, group: int, bits: int
    ) -> Array | None:
        """x (..., in), the codes in bytes, scales and biases of (out, in) -> (..., out); None: by unpacking."""
        codes, scales, biases = matrix
        rows = x.numel() // x.shape[-1]
        if not self.possible or not 0 < rows <= ROWS or x.requires_grad or x.dtype != scales.dtype:
            return None
        try:
            from minigen.backends.torch_triton import quantized_product

            flat = x.reshape(rows, -1).contiguous()
            held = [array.reshape(-1, array.shape[-1]).contiguous() for array in (codes, scales, biases)]
            y: Any = quantized_product(flat, *held, bias, group, bits)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a compiler, a driver or a library that does not go together, each in its own way
            log.warning(
                "the Triton kernel for quantized weights does not work here (%s): they are unpacked at each product",
                first_line(error),
            )
            self.possible = False
            return None
        return y.reshape(*x.shape[:-1], -1)


@cache
def few_rows() -> FewRows:
    """One for the process."""
    return FewRows()
