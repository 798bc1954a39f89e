"""The backend on PyTorch: CUDA and CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from minigen.backends.base import Array, Quantized, Tree
from minigen.backends.memory import peak_rss, physical_memory
from minigen.backends.operations import dequantized, rotate_halves
from minigen.backends.quantized import Held, arrays_of
from minigen.backends.torch import quantized as torch_quantized
from minigen.backends.torch.attention import attention, for_fast_attention
from minigen.backends.torch.choice import TorchChoice
from minigen.backends.torch.cpu import Kernels
from minigen.backends.torch.cuda import choose_attention, indexed
from minigen.backends.torch.numbers import prepare
from minigen.backends.torch.recurrence import run_prompt
from minigen.backends.torch.state import TorchState
from minigen.backends.torch.transfer import TorchTransfer
from minigen.errors import BackendError

PART = 2**22  # numbers that are summed at a time


def total(x: Array) -> Array:
    """The sum of all numbers in float32; in parts, because torch copies 16-bit numbers to widen
    them."""
    parts = [part.sum(dtype=torch.float32) for part in x.reshape(-1).split(PART)]
    return torch.stack(parts).sum()


class TorchBackend(TorchTransfer, TorchChoice, TorchState):
    """`Backend` on PyTorch.

    Raises BackendError for a device that torch cannot use.
    """

    name = "torch"
    asynchronous = False
    kernels: Kernels | None = None  # on a CPU
    static: Any = None  # graphs.StaticSteps, on CUDA; set from outside, as they need this class

    def __init__(self, device: str | None = None, threads: int | None = None) -> None:
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        prepare(device)
        try:
            kind = torch.device(device).type
            torch.zeros(1, device=device).tolist()  # fails on "meta", which holds no numbers
        except Exception as e:  # each kind of device fails in its own way
            reason = (str(e).splitlines() or ["no reason given"])[0]
            raise BackendError(f"torch cannot use the device {device!r}: {reason}") from e
        self.accelerated = kind != "cpu"
        self.device = str(indexed(torch.device(device))) if self.accelerated else "cpu"
        self.dtype = "float32"
        if kind == "cuda":
            choose_attention()
            self.asynchronous = True
        elif not self.accelerated:
            self.kernels = Kernels(threads)
        self.asked_threads = threads
        if threads is not None:
            torch.set_num_threads(threads)

    # -- shape ------------------------------------------------------------------------------------
    def permute(self, x: Array, axes: Sequence[int]) -> Array:
        return x.permute(*axes)

    def split(self, x: Array, sizes: Sequence[int], axis: int) -> list[Array]:
        return list(torch.split(x, list(sizes), dim=axis))

    def concat(self, xs: Sequence[Array], axis: int) -> Array:
        return torch.cat(list(xs), dim=axis)

    def stack(self, xs: Sequence[Array], axis: int) -> Array:
        return torch.stack(list(xs), dim=axis)

    def take(self, x: Array, indices: Sequence[int], axis: int) -> Array:
        return x.index_select(axis, torch.tensor(list(indices), device=x.device))

    # -- layers: a kernel gives None if torch should compute --------------------------------------
    def embedding(self, ids: Array, weight: Array | Quantized) -> Array:
        if isinstance(weight, Quantized):
            return torch_quantized.embedding(ids, weight)
        return F.embedding(ids, weight)

    def linear(self, x: Array, weight: Array | Quantized, bias: Array | None = None) -> Array:
        if self.kernels is not None:
            y = self.kernels.linear(x, weight, bias)
            if y is not None:
                return y
        if isinstance(weight, Quantized):
            return torch_quantized.linear(x, weight, bias)
        return F.linear(x, weight, bias)

    def quantize(self, weight: Array, bits: int, group: int) -> Quantized:
        return torch_quantized.quantize(weight, bits, group)

    def dequantize(self, weight: Quantized) -> Array:
        return torch_quantized.dequantize(weight)

    def layer_norm(self, x: Array, weight: Array, bias: Array | None, eps: float) -> Array:
        if self.kernels is not None:
            y = self.kernels.norm("LAYER_NORM", x, weight, bias, eps)
            if y is not None:
                return y
        return F.layer_norm(x, weight.shape, weight, bias, eps)

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        if self.kernels is not None:
            y = self.kernels.norm("RMS_NORM", x, weight, None, eps)
            if y is not None:
                return y
        return F.rms_norm(x, weight.shape, weight, eps)

    def gelu(self, x: Array, approximate: bool) -> Array:
        if approximate:
            kernel, torch_name = "GELU_TANH", "tanh"
        else:
            kernel, torch_name = "GELU", "none"
        if self.kernels is not None:
            y = self.kernels.activate(kernel, x)
            if y is not None:
                return y
        return F.gelu(x, approximate=torch_name)

    def relu(self, x: Array) -> Array:
        return F.relu(x)

    def silu(self, x: Array) -> Array:
        if self.kernels is not None:
            y = self.kernels.activate("SILU", x)
            if y is not None:
                return y
        return F.silu(x)

    def sigmoid(self, x: Array) -> Array:
        return torch.sigmoid(x)

    def tanh(self, x: Array) -> Array:
        return torch.tanh(x)

    def scale_columns(self, x: Array, factors: Array, plus: Array | None = None) -> Array:
        if plus is None:
            return x * factors
        return x * factors + plus

    def where(self, condition: Array, x: Array, y: Array) -> Array:
        return torch.where(condition, x, y)

    def rotate(self, x: Array, cos: Array, sin: Array) -> Array:
        if self.kernels is not None:
            y = self.kernels.rotate(x, cos, sin)
            if y is not None:
                return y
        return rotate_halves(self, x, cos, sin)

    def attention(
        self, q: Array, k: Held, v: Held, scale: float, mask: Array | str | None
    ) -> Array:
        k, v = dequantized(self, k), dequantized(self, v)
        if self.kernels is not None:
            y = self.kernels.attention(q, k, v, scale, mask)
            if y is not None:
                return y
        if self.accelerated:
            k, v = for_fast_attention(q, k, v, mask)
        return attention(q, k, v, scale, mask)

    def dropout(self, x: Array) -> Array:
        return x

    def recurrence(self, cell: str, p: Any, x: Array, state: tuple[Array, ...]) -> Any:
        return run_prompt(self, cell, p, x, state)

    # -- steps ------------------------------------------------------------------------------------
    def replay(
        self,
        ids: npt.NDArray[Any] | Array,
        state: Any,
        at: tuple[int, ...],
        record: Callable[[Any, Array], Any],
    ) -> Array | None:
        if self.static is not None:
            return self.static.read(ids, state, at, record)
        if self.kernels is None:
            return None
        if not isinstance(ids, np.ndarray):
            ids = self.numpy(ids)
        return self.kernels.replay(ids, state, at, record)

    def one_text(self) -> AbstractContextManager[None]:
        if self.kernels is None:
            return nullcontext()
        return self.kernels.text()

    def prepare(self) -> None:
        if self.kernels is not None:
            self.kernels.prepare()

    # -- running ----------------------------------------------------------------------------------
    def all_finite(self, xs: Sequence[Array]) -> list[bool]:
        # A sum is one pass over an array. Its elements are checked only if it is not finite, as
        # it may also overflow.
        sums = torch.stack([total(x) for x in xs]).isfinite().tolist()
        return [ok or bool(x.isfinite().all()) for ok, x in zip(sums, xs, strict=True)]

    def sync(self, *trees: Tree) -> None:
        if any(x.is_cuda for x in arrays_of(trees)):
            torch.cuda.synchronize(self.device)

    def release(self) -> None:
        pass  # CUDA's allocator splits its free blocks; to free them it would wait for the device

    def memory(self) -> int:
        if self.device.startswith("cuda"):
            return int(torch.cuda.max_memory_allocated(self.device))
        return peak_rss()

    def total_memory(self) -> int:
        if self.device.startswith("cuda"):
            return int(torch.cuda.get_device_properties(self.device).total_memory)
        return physical_memory()

    def threads(self) -> int | None:
        return int(torch.get_num_threads())

    def device_name(self) -> str | None:
        if self.device.startswith("cuda"):
            return str(torch.cuda.get_device_name(self.device))
        return self.device if self.accelerated else None
