"""The operations of training: dropout, fused recurrence, and a fast gradient of attention."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from minigen.backends.base import Array
from minigen.backends.cores import physical_cores
from minigen.backends.torch import recurrence as torch_recurrence
from minigen.backends.torch.backend import TorchBackend

CONSTANTS = 16  # small arrays that are kept on a GPU
# Bytes of attention weights:
CHUNK = 2 * 2**20  # computed at once: they stay in the cache of a core
KEPT = 128 * 2**20  # kept by a layer for its gradient; for more, torch's own kernel is used


class CausalAttention(torch.autograd.Function):  # type: ignore[misc]
    """Causal attention softmax(scale q k^T) v by matrix products; q, k, v and result (N, T, D).

    It works on a few heads at a time. On a CPU, torch's fused kernel takes 1.5 times as long
    forward and 3 to 10 times as long backward (torch 2.13, AVX-512), because it computes products
    in small tiles. This one keeps the weights (N, T, T) for the gradient.
    """

    @staticmethod
    def forward(ctx: Any, q: Array, k: Array, v: Array, scale: float) -> Array:
        N, T, _ = q.shape
        future = torch.full((T, T), -torch.inf, dtype=q.dtype).triu(1)
        weights, y = q.new_empty(N, T, T), torch.empty_like(v)
        rows = max(1, CHUNK // (T * T * q.itemsize))
        for i in range(0, N, rows):
            part = slice(i, i + rows)
            scores = torch.baddbmm(future, q[part], k[part].mT, alpha=scale)
            torch.softmax(scores, -1, out=weights[part])
            torch.bmm(weights[part], v[part], out=y[part])
        ctx.save_for_backward(q, k, v, weights)
        ctx.scale, ctx.rows = scale, rows
        return y

    @staticmethod
    def backward(ctx: Any, dy: Array) -> tuple[Array, Array, Array, None]:
        q, k, v, weights = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for i in range(0, q.shape[0], ctx.rows):
            part = slice(i, i + ctx.rows)
            w, d = weights[part], dy[part]
            torch.bmm(w.mT, d, out=dv[part])
            dw = torch.bmm(d, v[part].mT)
            ds = torch._softmax_backward_data(dw, w, -1, w.dtype)
            torch.baddbmm(dq[part], ds, k[part], beta=0, alpha=ctx.scale, out=dq[part])
            torch.baddbmm(dk[part], ds.mT, q[part], beta=0, alpha=ctx.scale, out=dk[part])
        return dq, dk, dv, None


class TrainingOps(TorchBackend):
    """The backend that a Training computes with."""

    def __init__(self, ops: Any, rate: float, compiled: bool) -> None:
        self.device, self.accelerated, self.dtype = ops.device, ops.accelerated, ops.dtype
        self.rate, self.compiled = rate, compiled
        self.constants: dict[Any, Array] = {}

    def asarray(self, x: npt.ArrayLike) -> Array:
        """As the backend's; on a GPU the array is kept for later steps.

        Positions and rotations are the same in each step, and copying them again would make the
        host wait for the device.
        """
        if not self.accelerated or self.compiled:  # compiled code keeps constants by itself
            return super().asarray(x)
        x = np.asarray(x)
        key = x.shape, x.dtype.str, x.tobytes()
        if key not in self.constants:
            if len(self.constants) == CONSTANTS:
                self.constants.clear()
            self.constants[key] = super().asarray(x)
        return self.constants[key]

    def zeros(self, shape: Sequence[int], dtype: str | None = None) -> Array:
        kind = getattr(torch, dtype or self.dtype)
        return torch.zeros(tuple(shape), dtype=kind, device=self.device)  # as a compiler can trace

    def dropout(self, x: Array) -> Array:
        if not self.rate:
            return x
        return F.dropout(x, self.rate)  # draws from the default generator, seeded by the step

    def attention(
        self, q: Array, k: Array, v: Array, scale: float, mask: Array | str | None
    ) -> Array:
        B, H, T, D = q.shape
        causal = isinstance(mask, str) and k.shape[2] == T
        if not causal or self.accelerated or B * H * T * T * q.itemsize > KEPT:
            return super().attention(q, k, v, scale, mask)
        G = k.shape[1]
        if G != H:
            k = k.repeat_interleave(H // G, dim=1)
            v = v.repeat_interleave(H // G, dim=1)
        q, k, v = (x.reshape(B * H, T, D) for x in (q, k, v))
        if self.compiled:  # the compiler fuses everything between the products
            future = torch.ones(T, T, dtype=torch.bool).triu(1)
            scores = torch.bmm(q, k.mT) * scale
            y = torch.bmm(torch.softmax(scores.masked_fill(future, -torch.inf), -1), v)
        else:
            y = CausalAttention.apply(q, k, v, scale)
        return y.reshape(B, H, T, D)

    # A compiler would unroll the kernel into its steps.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def recurrence(self, cell: str, p: Any, x: Array, state: tuple[Array, ...]) -> Any:
        return torch_recurrence.run(cell, p, x, state)


def keep_memory() -> None:
    """Makes glibc keep freed memory instead of returning large blocks to the system each time.

    Activations take tens of megabytes, are freed and allocated again in every step, and the system
    clears fresh pages one by one: without this, elementwise operations take several times as long.
    Other systems do not need it.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return
    M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 64 * 2**20)


def use_cores() -> None:
    """Limits torch to one thread per physical core: matrix products only wait for a second one.

    Processes that torchrun started on this machine share the cores.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    most = max(physical_cores() // processes, 1)
    if torch.get_num_threads() > most:
        torch.set_num_threads(most)
