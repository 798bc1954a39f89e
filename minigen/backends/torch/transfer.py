"""How arrays are created, converted, loaded and saved in torch, and copied to and from NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from minigen.backends.base import Array
from minigen.backends.memory import check_memory
from minigen.backends.torch.files import LazyFile


class TorchTransfer:
    """A part of TorchBackend; `Backend` describes its methods."""

    device: str
    dtype: str
    total_memory: Callable[[], int]

    def asarray(self, x: npt.ArrayLike) -> Array:
        x = np.asarray(x)
        if x.dtype.kind in "iu":
            return torch.from_numpy(x.astype(np.int64)).to(self.device)
        if x.dtype.kind == "b":
            return torch.from_numpy(x.copy()).to(self.device)
        return torch.from_numpy(x.astype(np.float32)).to(self.device, getattr(torch, self.dtype))

    def numpy(self, x: Array) -> npt.NDArray[Any]:
        x = x.detach().cpu()
        if x.dtype in (torch.bfloat16, torch.float16):
            x = x.float()
        array: npt.NDArray[Any] = x.numpy()
        return array

    def fetch(self, *arrays: Array) -> Callable[[], list[npt.NDArray[Any]]]:
        if not self.device.startswith("cuda"):
            return lambda: [self.numpy(x) for x in arrays]
        # Only into pinned memory is a copy queued on the device; any other makes the host wait.
        copies = []
        for x in arrays:
            pinned = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
            copies.append(pinned.copy_(x, non_blocking=True))
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

        tensors = {name: x.contiguous() for name, x in arrays.items()}
        try:
            save_file(tensors, path, metadata=dict(metadata))
        except SafetensorError as error:  # how the library reports an error of the disk
            raise OSError(str(error)) from error
