"""Reads the tensors of safetensors files for MLX."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import mlx.core as mx

from minigen.backends.base import Array


class HandedOver(Mapping[str, Array]):
    """The tensors of a safetensors file. It keeps none that it has given away, so that whoever makes something smaller
    of one has its memory back."""

    def __init__(self, path: Path) -> None:
        self.path, self.arrays = path, self.read(path)
        self.names = tuple(self.arrays)

    @staticmethod
    def read(path: Path) -> dict[str, Array]:
        arrays = mx.load(str(path), format="safetensors")  # lazily: this reads the header alone
        assert isinstance(arrays, dict)
        return arrays

    def __getitem__(self, name: str) -> Array:
        if name not in self.arrays and name in self.names:
            self.arrays = self.read(self.path)
        return self.arrays.pop(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
