"""Normalization over the last axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from minigen.backends.base import Array, Backend
from minigen.layers.param import Param


class Norm(Protocol):
    """A normalization with learned parameters."""

    def shapes(self, width: int) -> dict[str, Param]:
        """The parameters for a last axis of this width."""
        ...

    def apply(self, ops: Backend, p: Any, x: Array) -> Array:
        """x (..., width) -> (..., width)."""
        ...


@dataclass(frozen=True)
class LayerNorm:
    """Layer normalization (Ba et al. 2016)."""

    eps: float = 1e-5
    bias: bool = True

    def shapes(self, width: int) -> dict[str, Param]:
        shapes = {"weight": Param((width,), "ones")}
        if self.bias:
            shapes["bias"] = Param((width,), "zeros")
        return shapes

    def apply(self, ops: Backend, p: Any, x: Array) -> Array:
        return ops.layer_norm(x, p["weight"], p.get("bias"), self.eps)


@dataclass(frozen=True)
class RMSNorm:
    """Root mean square normalization (Zhang and Sennrich 2019)."""

    eps: float = 1e-6

    def shapes(self, width: int) -> dict[str, Param]:
        return {"weight": Param((width,), "ones")}

    def apply(self, ops: Backend, p: Any, x: Array) -> Array:
        return ops.rms_norm(x, p["weight"], self.eps)
