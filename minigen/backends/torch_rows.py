"""Torch's operations for the steps of one token on a CPU, by numba's kernels where numba is installed.

Each returns None where torch is to do it: numba has not been started, or the arrays are not as a kernel needs them.
"""

from __future__ import annotations

import logging
import os
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from minigen.backends.base import Array
from minigen.backends.cores import physical_cores
from minigen.errors import UsageError

KINDS = {torch.float32: np.float32(0), torch.bfloat16: np.uint16(0)}
LARGE = 2**21  # bytes of a matrix that is worth the seconds that numba takes to start: smaller models stay in the cache
SHARED = 2**17  # bytes, or products, that are worth a second thread
VARIABLE = "MINIGEN_KERNELS"

log = logging.getLogger("minigen")


def wanted() -> bool:
    """What the environment says. Raises UsageError for neither 0 nor 1."""
    said = os.environ.get(VARIABLE, "1")
    if said not in ("0", "1"):
        raise UsageError(f"{VARIABLE} is {said!r}: set it to 1 (the default), or to 0 to do without numba's kernels")
    return said == "1"


class OneRow:
    def __init__(self) -> None:
        self.possible = wanted() and find_spec("numba") is not None
        self.started = False  # by the first large matrix; the small ones then follow

    @cached_property
    def kernels(self) -> Any:
        """The compiled functions; None, with a warning, where numba is installed and does not work here."""
        try:
            import numba

            from minigen.backends import cpu_kernels
        except Exception as error:  # no folder to keep what it compiles in, another NumPy than it wants
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            log.warning("numba does not work here (%s): decoding goes by torch alone, at half the speed", reason)
            return None
        given = torch.get_num_threads()
        self.threads = min(given, physical_cores(), numba.config.NUMBA_NUM_THREADS)
        numba.set_num_threads(self.threads)
        torch.set_num_threads(given)  # where both use one OpenMP library, numba's start has set another
        return cpu_kernels

    def kind(self, first: Array, *others: Array | None) -> Any:
        """The element type of arrays as a kernel needs them; None for others."""
        if not self.started or not first.is_contiguous():
            return None
        fits = all(x is None or (x.dtype == first.dtype and x.is_contiguous()) for x in others)
        return KINDS.get(first.dtype) if fits else None

    def linear(self, x: Array, weight: Array, bias: Array | None) -> Array | None:
        rows, cols = weight.shape
        if x.numel() != cols:
            return None
        size = weight.numel() * weight.itemsize
        self.started = self.started or (self.possible and size >= LARGE and self.kernels is not None)
        kind = self.kind(x, weight, bias)
        if kind is None:
            return None
        y = x.new_empty((*x.shape[:-1], rows))
        at = 0 if bias is None else bias.data_ptr()
        given = kind, weight.data_ptr(), at, x.data_ptr(), y.data_ptr(), rows, cols
        self.kernels.linear_parts(*given, self.threads if size >= SHARED else 1)
        return y

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array | None:
        cols = weight.shape[0]
        kind = self.kind(x, weight) if x.numel() < SHARED else None
        if kind is None:
            return None
        y = torch.empty_like(x)
        self.kernels.rms_norm(kind, x.data_ptr(), weight.data_ptr(), y.data_ptr(), x.numel() // cols, cols, eps)
        return y

    def rotate(self, x: Array, cos: Array, sin: Array) -> Array | None:
        B, H, T, D = x.shape
        kind = self.kind(x, cos, sin) if B * T == 1 else None
        if kind is None:
            return None
        y, half = torch.empty_like(x), cos.shape[-1]
        self.kernels.rotate(kind, x.data_ptr(), cos.data_ptr(), sin.data_ptr(), y.data_ptr(), H, D, half)
        return y

    def attention(self, q: Array, k: Array, v: Array, scale: float, mask: Array | str | None) -> Array | None:
        B, H, T, D = q.shape
        G, S = k.shape[1], k.shape[2]
        kind = self.kind(q) if T == 1 and not isinstance(mask, torch.Tensor) else None
        row, stride, *inner = k.stride()
        if kind is None or v.stride() != k.stride() or inner != [D, 1] or (B > 1 and row != G * stride):
            return None
        y = torch.empty_like(q)
        given = kind, q.data_ptr(), k.data_ptr(), v.data_ptr(), y.data_ptr(), B * H, B * G, S, D, stride, scale
        if B * H * S * D >= SHARED:
            self.kernels.attend_parts(*given, self.threads)
        else:
            self.kernels.attend(*given, 0, B * H)
        return y
