"""Reads the tensors of safetensors files for torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from minigen.backends.base import Array


class LazyFile(Mapping[str, Array]):
    """The tensors of a safetensors file, mapped into memory and moved to the device when looked up.

    Each has its own mapping, so that the pages of a tensor that is only converted are freed with
    it.
    """

    def __init__(self, path: Path, device: str) -> None:
        self.path, self.device = path, device
        self.names = frozenset(self.open().keys())

    def open(self) -> Any:
        from safetensors import safe_open

        return safe_open(self.path, framework="pt", device=self.device)

    def __getitem__(self, name: str) -> Array:
        if name not in self.names:
            raise KeyError(name)
        return self.open().get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
