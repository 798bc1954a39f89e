"""Operations that numba's kernels compute for torch on a CPU: on few rows of activations, and in
float32.

Each method returns None if torch should compute instead: numba is not installed or not started, or
no kernel takes the arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from minigen.backends.base import Array, Quantized
from minigen.backends.cpu.instructions import Linear, Prompt, as_program, as_table
from minigen.backends.cpu.matrix import KINDS, Matrix
from minigen.backends.cpu.start import LARGE, KernelStart

FEW = 64  # rows up to which the kernels are used even where torch's products are faster
SHARED = 2**17  # bytes of work from which a second thread pays off


class Kernels(KernelStart):
    """The operations that have kernels."""

    @cached_property
    def steps(self) -> Any:
        from minigen.backends.cpu.steps import Steps

        return Steps(self.crew)

    def linear(self, x: Array, weight: Array | Quantized, bias: Array | None) -> Array | None:
        """As `Backend.linear`: one row for bfloat16 weights, any number for float32 and quantized
        weights."""
        matrix = Matrix.of(weight)
        if matrix is None or KINDS.get(x.dtype) is None:
            return None
        if x.numel() == 0 or x.shape[-1] != matrix.cols:
            return None
        if bias is not None and bias.shape != (matrix.rows,):
            return None
        n = x.numel() // matrix.cols
        if matrix.bytes >= LARGE:
            self.count(2 * matrix.rows * matrix.cols * n)
        bias_fits = bias is None or (bias.dtype == x.dtype and bias.is_contiguous())
        if not self.started or matrix.dtype != x.dtype or not bias_fits:
            return None
        if matrix.storage.kind == KINDS[torch.bfloat16]:
            most = 1
        elif x.dtype == torch.bfloat16 or not self.prompts:
            most = FEW
        else:
            most = n
        if n > most:
            if isinstance(weight, Quantized):
                return F.linear(x, self.unpack(matrix), bias)
            return None
        lines = x.reshape(n, matrix.cols).float().contiguous()
        y = lines.new_empty((n, matrix.rows))
        b = None if bias is None else bias.float()
        product = Linear(
            weight=matrix.storage,
            bias=0 if b is None else b.data_ptr(),
            x=lines.data_ptr(),
            x_stride=4 * lines.stride(0),
            out=y.data_ptr(),
            out_stride=4 * matrix.rows,
            rows=n,
            outputs=matrix.rows,
            inputs=matrix.cols,
        )
        program = as_program([product])
        key = ("linear", matrix.storage.kind, matrix.rows, matrix.cols, n)
        linear = self.compiled.linear.linear
        self.share(matrix.bytes * n, key, lambda threads: linear(program, 0, threads))
        return y.to(x.dtype).reshape(*x.shape[:-1], matrix.rows)

    def unpack(self, matrix: Matrix) -> Array:
        """Quantized weights as numbers (rows, cols)."""
        numbers = torch.empty((matrix.rows, matrix.cols), dtype=matrix.dtype)
        storages, size = as_table(matrix.storage), (matrix.rows, matrix.cols)
        unpack, address = self.compiled.linear.unpack_parts, numbers.data_ptr()
        key = ("unpack", matrix.storage.kind, *size)
        self.share(matrix.bytes, key, lambda threads: unpack(storages, address, *size, threads))
        return numbers

    def attention(
        self, q: Array, k: Array, v: Array, scale: float, mask: Array | str | None
    ) -> Array | None:
        """As `Backend.attention`, for several queries with the mask "causal"."""
        B, H, T, D = q.shape
        kind, G, S, size = KINDS.get(q.dtype), k.shape[1], k.shape[2], q.itemsize
        if not self.started or mask != "causal" or kind is None or D % 16:
            return None
        if T > FEW and not self.prompts:
            return None
        if k.shape != v.shape or k.shape[0] != B or k.shape[3] != D or H % G or S < T:
            return None
        if k.stride() != v.stride() or k.stride()[2:] != (D, 1) or q.stride(3) != 1:
            return None
        if k.dtype != q.dtype or v.dtype != q.dtype:
            return None
        y = q.new_empty((B, T, H, D))
        prompt = Prompt(
            kind=kind,
            q=q.data_ptr(),
            q_batch_stride=size * q.stride(0),
            q_head_stride=size * q.stride(1),
            q_token_stride=size * q.stride(2),
            keys=k.data_ptr(),
            values=v.data_ptr(),
            cache_batch_stride=size * k.stride(0),
            cache_head_stride=size * k.stride(1),
            out=y.data_ptr(),
            batch=B,
            heads=H,
            key_heads=G,
            queries=T,
            tokens=S,
            size=D,
            scale=scale,
        )
        tasks = as_table(prompt)
        attend = self.compiled.attention.attend_prompt
        key = ("attention", kind, B, H, G, T, S, D)
        self.crew.run(key, lambda threads: attend(tasks, threads))
        return y.permute(0, 2, 1, 3)

    def lines(self, x: Array) -> Array | None:
        """float32 x (..., C) as rows (n, C) in the same memory; None if that is not possible."""
        if not self.started or x.dtype != torch.float32 or x.stride(-1) != 1 or x.numel() == 0:
            return None
        try:
            return x.view(-1, x.shape[-1])
        except RuntimeError:  # the rows are not evenly spaced
            return None

    def activate(self, name: str, x: Array) -> Array | None:
        """An activation, by the name of its constant in cpu/small.py."""
        lines = self.lines(x)
        if lines is None:
            return None
        small = self.compiled.small
        y = lines.new_empty(lines.shape)
        layout = lines.data_ptr(), 4 * lines.stride(0), y.data_ptr()
        rows, cols = lines.shape
        kind = getattr(small, name)
        self.share(
            x.numel(),
            ("activate", kind, rows, cols),
            lambda threads: small.activate_parts(kind, *layout, rows, cols, threads),
        )
        return y.view(x.shape)

    def norm(
        self, name: str, x: Array, weight: Array, bias: Array | None, eps: float
    ) -> Array | None:
        """A norm, by the name of its constant in cpu/small.py."""
        lines = self.lines(x)
        if lines is None or not lines.is_contiguous():
            return None
        for factors in (weight, bias):
            if factors is None:
                continue
            if factors.shape != x.shape[-1:] or factors.dtype != x.dtype:
                return None
            if not factors.is_contiguous():
                return None
        y, small = torch.empty_like(lines), self.compiled.small
        bias_address = 0 if bias is None else bias.data_ptr()
        arrays = lines.data_ptr(), weight.data_ptr(), bias_address, y.data_ptr()
        rows, cols = lines.shape
        kind = getattr(small, name)
        self.share(
            x.numel(),
            ("norm", kind, rows, cols),
            lambda threads: small.norm_parts(kind, *arrays, rows, cols, eps, threads),
        )
        return y.view(x.shape)

    def rotate(self, x: Array, cos: Array, sin: Array) -> Array | None:
        """As `Backend.rotate`, for one row of a batch."""
        (B, H, T, D), half = x.shape, cos.shape[-1]
        if self.lines(x[:1, :1]) is None or B > 1 or 2 * half > D:
            return None
        for table in (cos, sin):  # a row per token; one row for all of them is left to torch
            if table.shape != (1, 1, T, half) or table.dtype != x.dtype:
                return None
            if not table.is_contiguous():
                return None
        y = x.new_empty((1, T, H, D))
        strides = 4 * x.stride(2), 4 * x.stride(1)
        arrays = x.data_ptr(), *strides, cos.data_ptr(), sin.data_ptr(), y.data_ptr()
        rotate, sizes = self.compiled.small.rotate_parts, (T, H, D, half)
        self.share(x.numel(), ("rotate", *sizes), lambda threads: rotate(*arrays, *sizes, threads))
        return y.permute(0, 2, 1, 3)

    def share(self, size: int, key: Hashable, kernel: Callable[[int], None]) -> None:
        """Calls a kernel with a number of threads: 1 if `size` bytes are too few for more.

        `key` names the kind of work, whose best number of threads is measured.
        """
        if size < SHARED:
            self.crew.run_alone(kernel)
        else:
            self.crew.run(key, kernel)

    def replay(
        self,
        ids: npt.NDArray[np.int64],
        state: Any,
        at: tuple[int, ...],
        record: Callable[[Any, Any], Any],
    ) -> Array | None:
        """As `Backend.replay`."""
        self.begin_step(state)
        if not self.started:
            return None
        return self.steps.read(ids, state, at, record)
