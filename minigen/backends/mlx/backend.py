"""The backend on MLX: Apple silicon, and the CPU of any machine that has it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from minigen.backends.base import Array, Quantized, Tree, plain, rotate_halves, turn, write_arrays
from minigen.backends.memory import check_memory, peak_rss, physical_memory
from minigen.backends.mlx.attention import FEW, quantized_attention, reads_codes
from minigen.backends.mlx.choice import MLXChoice
from minigen.backends.mlx.device import choose_device, device_info, gpu_memory, largest_array
from minigen.backends.mlx.files import HandedOver
from minigen.backends.mlx.memory import wire_memory
from minigen.backends.quantized import GROUPS, Held, arrays_of, each
from minigen.errors import BackendError


def gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1 + mx.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_erf(x: Array) -> Array:
    return 0.5 * x * (1 + mx.erf(x / math.sqrt(2)))


def silu(x: Array) -> Array:
    return x * mx.sigmoid(x)


def widen(x: Array) -> Array:
    return x.astype(mx.float32) if x.dtype in (mx.bfloat16, mx.float16) else x


SMALL: dict[Callable[..., Any], Callable[..., Any]] = {f: f for f in (gelu_tanh, gelu_erf, silu, turn)}


def filling(group: int) -> int:
    """What a row that is one group lacks to the next size of group that MLX has; 0 for a group of such a size."""
    return next(size for size in GROUPS if size >= group) - group


class MLXBackend(MLXChoice):
    name = "mlx"
    asynchronous = False
    fused = SMALL
    used: str | None = None  # MLX computes on its default device, of which a process has one

    def __init__(self, device: str | None = None) -> None:
        self.device = choose_device(device)
        if MLXBackend.used not in (None, self.device):
            raise BackendError(
                f"mlx already runs on {MLXBackend.used} here: a process has one device for all its models"
            )
        MLXBackend.used = self.device
        mx.set_default_device(mx.Device(getattr(mx, self.device)))
        self.accelerated = self.device == "gpu"
        if self.accelerated:
            self.asynchronous = True  # on two cores of a CPU, steps ahead ran at 0.97 to 0.99 of the speed
            wire_memory()
            # One kernel each, for any shape. On a CPU that would call the C++ compiler for a second at the first use.
            self.fused = {f: mx.compile(f, shapeless=True) for f in SMALL}
        self.dtype = "float32"

    # -- in and out ---------------------------------------------------------------------------------------------------
    def asarray(self, x: npt.ArrayLike) -> Array:
        x = np.asarray(x)
        if x.dtype.kind in "iu":
            return mx.array(x.astype(np.int32))
        if x.dtype.kind == "b":
            return mx.array(x.copy())  # it takes no negative strides
        return mx.array(x.astype(np.float32)).astype(getattr(mx, self.dtype))

    def from_numpy(self, x: npt.NDArray[Any]) -> Array:
        return mx.array(x)

    def numpy(self, x: Array) -> npt.NDArray[Any]:
        return np.array(widen(x))

    def fetch(self, *arrays: Array) -> Callable[[], list[npt.NDArray[Any]]]:
        wide = [widen(x) for x in arrays]  # now: later it would have to wait for its turn on the device
        mx.async_eval(*wide)  # type: ignore[no-untyped-call]
        return lambda: [np.array(x) for x in wide]

    def zeros(self, shape: Sequence[int], dtype: str | None = None) -> Array:
        kind = getattr(mx, dtype or self.dtype)
        wanted = math.prod(shape) * kind.size
        check_memory(wanted, self.total_memory())
        if self.accelerated:
            check_memory(wanted, largest_array(), "in one array")
        return mx.zeros(tuple(shape), dtype=kind)

    def astype(self, x: Array, dtype: str) -> Array:
        return x.astype(getattr(mx, dtype))

    def view(self, x: Array, dtype: str) -> Array:
        return x.view(getattr(mx, dtype))

    def contiguous(self, x: Array) -> Array:
        return mx.contiguous(x)

    def load(self, path: Path) -> Mapping[str, Array]:
        return HandedOver(path)

    def save(self, path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
        # An open file, because MLX appends ".safetensors" to a path that does not end so.
        with open(path, "wb") as file:
            mx.save_safetensors(file, dict(arrays), dict(metadata))

    # -- shape --------------------------------------------------------------------------------------------------------
    def permute(self, x: Array, axes: Sequence[int]) -> Array:
        return mx.transpose(x, list(axes))

    def split(self, x: Array, sizes: Sequence[int], axis: int) -> list[Array]:
        return list(mx.split(x, np.cumsum(sizes[:-1]).tolist(), axis=axis))

    def concat(self, xs: Sequence[Array], axis: int) -> Array:
        return mx.concatenate(list(xs), axis=axis)

    def stack(self, xs: Sequence[Array], axis: int) -> Array:
        return mx.stack(list(xs), axis=axis)

    def take(self, x: Array, indices: Sequence[int], axis: int) -> Array:
        return mx.take(x, mx.array(list(indices)), axis=axis)

    # -- layers -------------------------------------------------------------------------------------------------------
    def embedding(self, ids: Array, weight: Array | Quantized) -> Array:
        if isinstance(weight, Quantized):
            return self.dequantize(each(lambda array: array[ids], weight))
        return weight[ids]

    def linear(self, x: Array, weight: Array | Quantized, bias: Array | None = None) -> Array:
        if isinstance(weight, Quantized):
            q = weight
            if not self.accelerated:  # in 16 bits MLX's CPU kernel sums in 16 bits too, and takes ten times as long
                x, q = widen(x), each(widen, weight)
            y = mx.quantized_matmul(x, q.packed, q.scales, q.biases, True, q.group, q.bits, q.mode)
            y = y.astype(getattr(mx, self.dtype))
            return y if bias is None else y + bias
        return x @ weight.T if bias is None else mx.addmm(bias, x, weight.T)

    def quantize(self, weight: Array, bits: int, group: int) -> Quantized:
        more = filling(group)  # by a number that is there already, which changes no scale
        if more:
            weight = mx.concatenate([weight, mx.repeat(weight[..., :1], more, axis=-1)], axis=-1)
        packed, scales, biases = mx.quantize(weight, group_size=group + more, bits=bits)
        words = packed.shape[-1] - more * bits // 32
        return Quantized(packed[..., :words], scales, biases, group, bits)

    def dequantize(self, weight: Quantized) -> Array:
        packed, scales, biases, group, bits, mode = weight
        more = filling(group) if mode == "affine" else 0
        if more:
            packed = mx.concatenate([packed, mx.zeros((*packed.shape[:-1], more * bits // 32), mx.uint32)], axis=-1)
        dtype = None if mode == "affine" else getattr(mx, self.dtype)  # affine ones have that of their scales
        found = mx.dequantize(packed, scales, biases, group + more, bits, mode, dtype=dtype)
        return found[..., :group] if more else found

    def layer_norm(self, x: Array, weight: Array, bias: Array | None, eps: float) -> Array:
        return mx.fast.layer_norm(x, weight, bias, eps)

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        return mx.fast.rms_norm(x, weight, eps)

    def gelu(self, x: Array, approximate: bool) -> Array:
        return self.fused[gelu_tanh if approximate else gelu_erf](x)

    def relu(self, x: Array) -> Array:
        return mx.maximum(x, 0)

    def silu(self, x: Array) -> Array:
        return self.fused[silu](x)

    def sigmoid(self, x: Array) -> Array:
        return mx.sigmoid(x)

    def tanh(self, x: Array) -> Array:
        return mx.tanh(x)

    def scale_columns(self, x: Array, factors: Array, plus: Array | None = None) -> Array:
        return x * factors if plus is None else x * factors + plus

    def where(self, condition: Array, x: Array, y: Array) -> Array:
        return mx.where(condition, x, y)

    def rotate(self, x: Array, cos: Array, sin: Array) -> Array:
        # Not mx.fast.rope, which makes the angles itself in float32: the tables hold those of long contexts exactly.
        return rotate_halves(self, x, cos, sin, self.fused[turn])

    def attention(self, q: Array, k: Held, v: Held, scale: float, mask: Array | str | None) -> Array:
        # On a CPU a product with codes takes longer than making numbers of them.
        if self.accelerated and q.shape[2] <= FEW and reads_codes(k) and reads_codes(v):
            return quantized_attention(q, k, v, scale, mask)
        k, v = plain(self, k), plain(self, v)
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)

    def dropout(self, x: Array) -> Array:
        return x

    def recurrence(self, cell: str, p: Any, x: Array, state: tuple[Array, ...]) -> Any:
        return None

    # -- state --------------------------------------------------------------------------------------------------------
    def write(self, buffers: Sequence[Held], new: Sequence[Array], position: int) -> list[Held]:
        return [write_arrays(self, buffer, x, position) for buffer, x in zip(buffers, new, strict=True)]

    def remembered(self, buffer: Array) -> Array:
        return buffer

    def assign(self, buffer: Array, new: Array) -> Array:
        return new.astype(buffer.dtype)  # arrays do not change, so a copy is the array itself

    def copy(self, x: Array) -> Array:
        return x

    # -- steps --------------------------------------------------------------------------------------------------------
    def replay(
        self, ids: npt.NDArray[Any] | Array, state: Any, at: tuple[int, ...], record: Callable[[Any, Array], Any]
    ) -> Array | None:
        return None

    def one_text(self) -> AbstractContextManager[None]:
        return nullcontext()

    def prepare(self) -> None:
        pass

    # -- running ------------------------------------------------------------------------------------------------------
    def all_finite(self, xs: Sequence[Array]) -> list[bool]:
        # A sum is one pass without a temporary; only a suspicious one is looked at element by element. One at a time.
        return [bool(mx.isfinite(x.sum()).item()) or bool(mx.isfinite(x).all().item()) for x in xs]

    def sync(self, *trees: Tree) -> None:
        mx.eval(*arrays_of(trees))

    def release(self) -> None:
        if self.accelerated:
            mx.clear_cache()

    def memory(self) -> int:
        return int(mx.get_peak_memory()) if self.accelerated else peak_rss()

    def total_memory(self) -> int:
        return gpu_memory() if self.accelerated else physical_memory()

    def threads(self) -> int | None:
        # One runs its operations, and the BLAS in its wheels for Linux has no more; Apple's does not say.
        return 1 if sys.platform == "linux" and not self.accelerated else None

    def device_name(self) -> str | None:
        return str(device_info()["device_name"]) if self.accelerated else None
