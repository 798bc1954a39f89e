"""Operations on states in torch, which overwrite buffers in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigen.backends.base import Array
from minigen.backends.operations import write_arrays
from minigen.backends.quantized import Held
from minigen.backends.torch import quantized as torch_quantized


class TorchState:
    """A part of TorchBackend; `Backend` describes its methods."""

    quantize: Any

    def remembered(self, buffer: Array) -> Array:
        return buffer

    def assign(self, buffer: Array, new: Array) -> Array:
        return buffer.copy_(new)

    def copy(self, x: Array) -> Array:
        return x.clone()

    def write(self, buffers: Sequence[Held], new: Sequence[Array], position: int) -> list[Held]:
        held = torch_quantized.as_held(self.quantize, new, buffers[0])
        return [
            self._write_one(buffer, x, position) for buffer, x in zip(buffers, held, strict=True)
        ]

    def _write_one(self, buffer: Held, new: Held, position: int) -> Held:
        ops: Any = self
        return write_arrays(ops, buffer, new, position)
