"""The backend on PyTorch: CUDA and CPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from minigen.backends.base import Array, Quantized, Tree, plain, rotate_halves
from minigen.backends.memory import check_memory, peak_rss, physical_memory
from minigen.backends.quantized import Held, arrays_of
from minigen.backends.torch import quantized as torch_quantized
from minigen.backends.torch.choice import TorchChoice
from minigen.backends.torch.cpu import Kernels
from minigen.backends.torch.cuda import choose_attention, for_fast_attention, indexed
from minigen.backends.torch.files import LazyFile
from minigen.backends.torch.numbers import prepare
from minigen.backends.torch.recurrence import run_prompt
from minigen.backends.torch.state import TorchState
from minigen.errors import BackendError

PART = 2**22  # numbers that are summed at a time


class TorchBackend(TorchChoice, TorchState):
    name = "torch"
    asynchronous = False
    kernels: Kernels | None = None  # on a CPU
    static: Any = None  # graphs.StaticSteps, on CUDA: they are made of this class, and given to it

    def __init__(self, device: str | None = None, threads: int | None = None) -> None:
        wanted = ("cuda" if torch.cuda.is_available() else "cpu") if device is None else device
        prepare(wanted)
        try:
            kind = torch.device(wanted).type
            torch.zeros(1, device=wanted).tolist()  # fails on "meta", which holds no numbers
        except Exception as e:  # each kind of device fails in its own way
            reason = (str(e).splitlines() or ["no reason given"])[0]
            raise BackendError(f"torch cannot use the device {wanted!r}: {reason}") from e
        self.device = "cpu" if kind == "cpu" else str(indexed(torch.device(wanted)))
        self.accelerated = kind != "cpu"
        self.dtype = "float32"
        if kind == "cuda":
            choose_attention()
            self.asynchronous = True
        elif not self.accelerated:
            self.kernels = Kernels(threads)
        self.asked_threads = threads
        if threads is not None:
            torch.set_num_threads(threads)

    # -- in and out ---------------------------------------------------------------------------------------------------
    def asarray(self, x: npt.ArrayLike) -> Array:
        x = np.asarray(x)
        if x.dtype.kind in "iu":
            return torch.from_numpy(x.astype(np.int64)).to(self.device)
        if x.dtype.kind == "b":
            return torch.from_numpy(x.copy()).to(self.device)
        return torch.from_numpy(x.astype(np.float32)).to(self.device, getattr(torch, self.dtype))

    def from_numpy(self, x: npt.NDArray[Any]) -> Array:
        return torch.from_numpy(np.require(x, requirements=("C", "W"))).to(self.device)

    def numpy(self, x: Array) -> npt.NDArray[Any]:
        x = x.detach().cpu()
        array: npt.NDArray[Any] = (x.float() if x.dtype in (torch.bfloat16, torch.float16) else x).numpy()
        return array

    def fetch(self, *arrays: Array) -> Callable[[], list[npt.NDArray[Any]]]:
        if not self.device.startswith("cuda"):
            return lambda: [self.numpy(x) for x in arrays]
        # Only from pinned memory does a copy wait for its turn on the device without making the host wait.
        copies = [torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x, non_blocking=True) for x in arrays]
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(self.device))

        def wait() -> list[npt.NDArray[Any]]:
            done.synchronize()
            return [self.numpy(x) for x in copies]

        return wait

    def zeros(self, shape: Sequence[int], dtype: str | None = None) -> Array:
        kind = getattr(torch, dtype or self.dtype)
        check_memory(math.prod(shape) * kind.itemsize, self.total_memory())
        return torch.zeros(tuple(shape), dtype=kind, device=self.device)

    def astype(self, x: Array, dtype: str) -> Array:
        return x.to(getattr(torch, dtype))

    def view(self, x: Array, dtype: str) -> Array:
        return x.view(getattr(torch, dtype))

    def contiguous(self, x: Array) -> Array:
        return x.contiguous()

    def load(self, path: Path) -> Mapping[str, Array]:
        return LazyFile(path, self.device)

    def save(self, path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        try:
            save_file({name: x.contiguous() for name, x in arrays.items()}, path, metadata=dict(metadata))
        except SafetensorError as error:  # what the disk said, in the words of the library
            raise OSError(str(error)) from error

    # -- shape --------------------------------------------------------------------------------------------------------
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

    # -- layers -------------------------------------------------------------------------------------------------------
    def embedding(self, ids: Array, weight: Array | Quantized) -> Array:
        return torch_quantized.embedding(ids, weight) if isinstance(weight, Quantized) else F.embedding(ids, weight)

    def linear(self, x: Array, weight: Array | Quantized, bias: Array | None = None) -> Array:
        y = self.kernels and self.kernels.linear(x, weight, bias)
        if y is None and isinstance(weight, Quantized):
            return torch_quantized.linear(x, weight, bias)
        return F.linear(x, weight, bias) if y is None else y

    def quantize(self, weight: Array, bits: int, group: int) -> Quantized:
        return torch_quantized.quantize(weight, bits, group)

    def dequantize(self, weight: Quantized) -> Array:
        return torch_quantized.dequantize(weight)

    def layer_norm(self, x: Array, weight: Array, bias: Array | None, eps: float) -> Array:
        y = self.kernels and self.kernels.norm("LAYER_NORM", x, weight, bias, eps)
        return F.layer_norm(x, weight.shape, weight, bias, eps) if y is None else y

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        y = self.kernels and self.kernels.norm("RMS_NORM", x, weight, None, eps)
        return F.rms_norm(x, weight.shape, weight, eps) if y is None else y

    def gelu(self, x: Array, approximate: bool) -> Array:
        y = self.kernels and self.kernels.activate("GELU_TANH" if approximate else "GELU", x)
        return F.gelu(x, approximate="tanh" if approximate else "none") if y is None else y

    def relu(self, x: Array) -> Array:
        return F.relu(x)

    def silu(self, x: Array) -> Array:
        y = self.kernels and self.kernels.activate("SILU", x)
        return F.silu(x) if y is None else y

    def sigmoid(self, x: Array) -> Array:
        return torch.sigmoid(x)

    def tanh(self, x: Array) -> Array:
        return torch.tanh(x)

    def scale_columns(self, x: Array, factors: Array, plus: Array | None = None) -> Array:
        return x * factors if plus is None else x * factors + plus

    def where(self, condition: Array, x: Array, y: Array) -> Array:
        return torch.where(condition, x, y)

    def rotate(self, x: Array, cos: Array, sin: Array) -> Array:
        y = self.kernels and self.kernels.rotate(x, cos, sin)
        return rotate_halves(self, x, cos, sin) if y is None else y

    def attention(self, q: Array, k: Held, v: Held, scale: float, mask: Array | str | None) -> Array:
        k, v = plain(self, k), plain(self, v)
        y = self.kernels and self.kernels.attention(q, k, v, scale, mask)
        if y is not None:
            return y
        if self.accelerated:
            k, v = for_fast_attention(q, k, v, mask)
        B, H, T, D = q.shape
        G, S = k.shape[1], k.shape[2]
        if isinstance(mask, str):  # "causal"
            if T == S:
                return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=H != G)
            # is_causal counts from the first key; a cache needs it counted from the last
            mask = None if T == 1 else torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
        if T == 1 and H != G:
            # The heads of a group become its queries, so that no copy of the cache is made for each head.
            q = q.reshape(B, G, H // G, D)
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).reshape(B, H, T, D)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=H != G)

    def dropout(self, x: Array) -> Array:
        return x

    def recurrence(self, cell: str, p: Any, x: Array, state: tuple[Array, ...]) -> Any:
        return run_prompt(self, cell, p, x, state)

    # -- steps --------------------------------------------------------------------------------------------------------
    def replay(
        self, ids: npt.NDArray[Any] | Array, state: Any, at: tuple[int, ...], record: Callable[[Any, Array], Any]
    ) -> Array | None:
        if self.static is not None:
            return self.static.read(ids, state, at, record)
        if self.kernels is None:
            return None
        return self.kernels.replay(ids if isinstance(ids, np.ndarray) else self.numpy(ids), state, at, record)

    def one_text(self) -> AbstractContextManager[None]:
        return nullcontext() if self.kernels is None else self.kernels.text()

    def prepare(self) -> None:
        if self.kernels is not None:
            self.kernels.prepare()

    # -- running ------------------------------------------------------------------------------------------------------
    def all_finite(self, xs: Sequence[Array]) -> list[bool]:
        # A sum is one pass; only a suspicious one is looked at element by element. In parts, as torch widens 16-bit
        # numbers by a copy of all that it sums.
        def total(x: Array) -> Array:
            return torch.stack([part.sum(dtype=torch.float32) for part in x.reshape(-1).split(PART)]).sum()

        sums = torch.stack([total(x) for x in xs]).isfinite().tolist()
        return [ok or bool(x.isfinite().all()) for ok, x in zip(sums, xs, strict=True)]

    def sync(self, *trees: Tree) -> None:
        if any(x.is_cuda for x in arrays_of(trees)):
            torch.cuda.synchronize(self.device)

    def release(self) -> None:
        pass  # CUDA's allocator splits what it keeps, and waits for the device to give it back

    def memory(self) -> int:
        return int(torch.cuda.max_memory_allocated(self.device)) if self.device.startswith("cuda") else peak_rss()

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
