"""The position-wise network of a block, and the activations that checkpoints name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from minigen.backends.base import Array, Backend
from minigen.layers.param import linear_shapes, scale_down

ACTIVATIONS: dict[str, Callable[[Backend, Array], Array]] = {
    "gelu": lambda ops, x: ops.gelu(x, approximate=False),
    "gelu_new": lambda ops, x: ops.gelu(x, approximate=True),
    "gelu_pytorch_tanh": lambda ops, x: ops.gelu(x, approximate=True),
    "relu": lambda ops, x: ops.relu(x),
    "silu": lambda ops, x: ops.silu(x),
    "swish": lambda ops, x: ops.silu(x),
}


class FeedForward(Protocol):
    def shapes(self, width: int, layers: int) -> dict[str, Any]: ...

    def apply(self, ops: Backend, p: Any, x: Array) -> Array: ...


@dataclass(frozen=True)
class PlainFeedForward:
    """down(activation(up(x))), as in the Transformer (Vaswani et al. 2017)."""

    hidden: int
    activation: str
    bias: bool = True

    def shapes(self, width: int, layers: int) -> dict[str, Any]:
        return {
            "up": linear_shapes(width, self.hidden, self.bias),
            "down": scale_down(linear_shapes(self.hidden, width, self.bias), layers),
        }

    def apply(self, ops: Backend, p: Any, x: Array) -> Array:
        return ops.linear(ACTIVATIONS[self.activation](ops, ops.linear(x, **p["up"])), **p["down"])


@dataclass(frozen=True)
class GatedFeedForward:
    """down(activation(gate(x)) * up(x)) (Shazeer 2020); gate and up are one matrix."""

    hidden: int
    activation: str
    bias: bool = False

    def shapes(self, width: int, layers: int) -> dict[str, Any]:
        parts = (self.hidden, self.hidden)
        return {
            "gate_up": linear_shapes(width, 2 * self.hidden, self.bias, parts=parts),
            "down": scale_down(linear_shapes(self.hidden, width, self.bias), layers),
        }

    def apply(self, ops: Backend, p: Any, x: Array) -> Array:
        gate, up = ops.split(ops.linear(x, **p["gate_up"]), (self.hidden, self.hidden), axis=-1)
        return ops.linear(ACTIVATIONS[self.activation](ops, gate) * up, **p["down"])
