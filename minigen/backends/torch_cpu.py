"""What numba's kernels do for torch on a CPU, where numba is installed: few rows of activations, and float32.

Each method returns None where torch is to do it: numba has not been started, or the arrays are not as a kernel needs
them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from minigen.backends.base import Array, Quantized
from minigen.backends.cores import physical_cores
from minigen.errors import UsageError

KINDS = {torch.float32: 0, torch.bfloat16: 1}  # as in cpu/dots.py, which is not to be imported yet
FEW = 64  # rows of bfloat16 for which unpacked weights are not worth torch's faster products
LARGE = 2**21  # bytes of a matrix that is worth the time that numba takes to start: smaller models stay in the cache
WORK = 10**11  # operations that torch takes half a second for
COMPILING = 30  # seconds, on a slow machine
SHARED = 2**17  # bytes that are worth a second thread
VARIABLE = "MINIGEN_KERNELS"

log = logging.getLogger("minigen")


def wanted() -> bool:
    """What the environment says. Raises UsageError for neither 0 nor 1."""
    said = os.environ.get(VARIABLE, "1")
    if said not in ("0", "1"):
        raise UsageError(f"{VARIABLE} is {said!r}: set it to 1 (the default), or to 0 to do without numba's kernels")
    return said == "1"


class Matrix(NamedTuple):
    """Weights as a kernel is told of them: their kind, where they are, and the dtype that goes with them."""

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
        at, *others = (x.data_ptr() for x in arrays)
        (rows, cols), dtype = arrays[0].shape, arrays[-1].dtype
        if dtype not in KINDS or not all(x.is_contiguous() for x in arrays):
            return None
        size = sum(x.numel() * x.itemsize for x in arrays)
        if isinstance(weight, Quantized):
            scales, biases = others
            cols = cols * 32 // weight.bits
            return cls(weight.bits, at, scales, biases, KINDS[dtype], weight.group, rows, cols, size, dtype)
        return cls(KINDS[dtype], at, 0, 0, 0, 1, rows, cols, size, dtype)

    def where(self) -> tuple[int, int, int, int, int, int]:
        """The first of what the kernels are given."""
        return self.kind, self.at, self.scales, self.biases, self.scale_kind, self.group


class Kernels:
    """numba takes half a second to start, so the first prompt does not wait for it: it starts with the step after, or
    when torch has done as much work as makes up for it, and only for models with a large matrix."""

    def __init__(self) -> None:
        self.possible = wanted() and find_spec("numba") is not None
        self.started = False
        self.work = 0  # operations with large matrices so far

    def start(self) -> None:
        self.started = self.possible and self.compiled is not None
        self.possible = self.started  # what failed is not tried again

    @cached_property
    def compiled(self) -> Any:
        """The package of the kernels; None, with a warning, where numba is installed and does not work here."""
        try:
            import numba

            from minigen.backends import cpu
            from minigen.backends.cpu import attention, linear, small  # noqa: F401  (found in `cpu` below)
        except Exception as error:  # no folder to keep what it compiles in, another NumPy than it wants
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            log.warning("numba does not work here (%s): decoding goes by torch alone, at half the speed", reason)
            return None
        if not Path(numba.config.CACHE_DIR).exists():
            log.warning("kernels are compiled for this machine, once: that takes about %d seconds", COMPILING)
        given = torch.get_num_threads()
        self.threads = min(given, physical_cores(), numba.config.NUMBA_NUM_THREADS)
        numba.set_num_threads(self.threads)
        torch.set_num_threads(given)  # where both use one OpenMP library, numba's start has set another
        return cpu

    @cached_property
    def steps(self) -> Any:
        from minigen.backends.cpu.steps import Steps

        return Steps(self.threads)

    def linear(self, x: Array, weight: Array | Quantized, bias: Array | None) -> Array | None:
        """As `Backend.linear`: for float32 any number of rows, for bfloat16 one, for quantized weights any."""
        matrix = Matrix.of(weight)
        if matrix is None or KINDS.get(x.dtype) is None or x.numel() == 0:
            return None
        n = x.numel() // matrix.cols
        if matrix.bytes >= LARGE and self.possible and not self.started:
            self.work += 2 * matrix.rows * matrix.cols * n
            if self.work >= WORK:
                self.start()
        most = 1 if matrix.kind == KINDS[torch.bfloat16] else FEW if x.dtype == torch.bfloat16 else n
        fits = matrix.dtype == x.dtype and (bias is None or (bias.dtype == x.dtype and bias.is_contiguous()))
        if not self.started or not fits:
            return None
        if n > most:
            return F.linear(x, self.unpack(matrix), bias) if isinstance(weight, Quantized) else None
        lines = x.reshape(n, matrix.cols).float().contiguous()
        y = lines.new_empty((n, matrix.rows))
        b = None if bias is None else bias.float()
        where = lines.data_ptr(), 4 * lines.stride(0), y.data_ptr(), 4 * matrix.rows
        parts = self.threads if matrix.bytes * n >= SHARED else 1
        at = 0 if b is None else b.data_ptr()
        self.compiled.linear.linear(*matrix.where(), at, *where, n, matrix.rows, matrix.cols, parts)
        return y.to(x.dtype).reshape(*x.shape[:-1], matrix.rows)

    def unpack(self, matrix: Matrix) -> Array:
        """Quantized weights as numbers."""
        found = torch.empty((matrix.rows, matrix.cols), dtype=matrix.dtype)
        self.compiled.linear.unpack_parts(*matrix.where(), found.data_ptr(), matrix.rows, matrix.cols, self.threads)
        return found

    def attention(self, q: Array, k: Array, v: Array, scale: float, mask: Array | str | None) -> Array | None:
        """As `Backend.attention`, for several queries each of which sees the keys up to its own."""
        B, H, T, D = q.shape
        kind, G, S, size = KINDS.get(q.dtype), k.shape[1], k.shape[2], q.itemsize
        if not self.started or mask != "causal" or kind is None or D % 16:
            return None
        if k.stride() != v.stride() or k.stride()[2:] != (D, 1) or q.stride(3) != 1 or k.dtype != q.dtype:
            return None
        y = q.new_empty((B, T, H, D))
        strides = [size * step for step in q.stride()[:3]]
        where = k.data_ptr(), v.data_ptr(), size * k.stride(0), size * k.stride(1), y.data_ptr()
        self.compiled.attention.attend_all(kind, q.data_ptr(), *strides, *where, B, H, G, T, S, D, scale, self.threads)
        return y.permute(0, 2, 1, 3)

    def lines(self, x: Array) -> Array | None:
        """float32 (..., C) as rows (n, C), in the same memory; None for what is no such thing."""
        if not self.started or x.dtype != torch.float32 or x.stride(-1) != 1 or x.numel() == 0:
            return None
        try:
            return x.view(-1, x.shape[-1])
        except RuntimeError:  # rows that are not one distance apart
            return None

    def activate(self, name: str, x: Array) -> Array | None:
        """An activation, by its name in cpu/small.py."""
        lines = self.lines(x)
        if lines is None:
            return None
        small = self.compiled.small
        y = lines.new_empty(lines.shape)
        where = lines.data_ptr(), 4 * lines.stride(0), y.data_ptr()
        small.activate_parts(getattr(small, name), *where, *lines.shape, self.parts(x))
        return y.view(x.shape)

    def norm(self, name: str, x: Array, weight: Array, bias: Array | None, eps: float) -> Array | None:
        """A norm, by its name in cpu/small.py."""
        lines = self.lines(x)
        same = all(a is None or (a.dtype == x.dtype and a.is_contiguous()) for a in (weight, bias))
        if lines is None or not same or not lines.is_contiguous():
            return None
        y, small = torch.empty_like(lines), self.compiled.small
        where = lines.data_ptr(), weight.data_ptr(), 0 if bias is None else bias.data_ptr(), y.data_ptr()
        small.norm_parts(getattr(small, name), *where, *lines.shape, eps, self.parts(x))
        return y.view(x.shape)

    def rotate(self, x: Array, cos: Array, sin: Array) -> Array | None:
        """As `Backend.rotate`, for one row of a batch."""
        (B, H, T, D), half = x.shape, cos.shape[-1]
        if self.lines(x[:1, :1]) is None or B > 1 or not cos.is_contiguous() or not sin.is_contiguous():
            return None
        y = x.new_empty((1, T, H, D))
        where = x.data_ptr(), 4 * x.stride(2), 4 * x.stride(1), cos.data_ptr(), sin.data_ptr(), y.data_ptr()
        self.compiled.small.rotate_parts(*where, T, H, D, half, self.parts(x))
        return y.permute(0, 2, 1, 3)

    def parts(self, x: Array) -> int:
        return int(self.threads) if x.numel() >= SHARED else 1

    def replay(
        self, ids: npt.NDArray[np.int64], state: Any, at: tuple[int, ...], record: Callable[[Any, Any], Any]
    ) -> Array | None:
        """As `Backend.replay`."""
        if self.work and self.possible and not self.started and state.length > 0:
            self.start()
        return self.steps.read(ids, state, at, record) if self.started else None
