"""The position-wise network of a block, and the activations that a config.json can name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from minigen.backends.base import Array, Backend
from minigen.layers.param import linear_shapes, scale_down


def gelu(ops: Backend, x: Array) -> Array:
    return ops.gelu(x, approximate=False)


def gelu_tanh(ops: Backend, x: Array) -> Array:
    return ops.gelu(x, approximate=True)


def relu(ops: Backend, x: Array) -> Array:
    return ops.relu(x)


def silu(ops: Backend, x: Array) -> Array:
    return ops.silu(x)


ACTIVATIONS: dict[str, Callable[[Backend, Array], Array]] = {
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": relu,
    "silu": silu,
    "swish": silu,
}


class FeedForward(Protocol):
    """A network that is applied to each token by itself."""

    def shapes(self, width: int, layers: int) -> dict[str, Any]:
        """The parameters, as `Block.shapes` describes them."""
        ...

    def apply(self, ops: Backend, p: Any, x: Array) -> Array:
        """x (B, T, C) -> (B, T, C)."""
        ...


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
        activation = ACTIVATIONS[self.activation]
        return ops.linear(activation(ops, ops.linear(x, **p["up"])), **p["down"])


@dataclass(frozen=True)
class GatedFeedForward:
    """down(activation(gate(x)) * up(x)) (Shazeer 2020). Gate and up are one matrix."""

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
        activation = ACTIVATIONS[self.activation]
        gate_up = ops.linear(x, **p["gate_up"])
        gate, up = ops.split(gate_up, (self.hidden, self.hidden), axis=-1)
        return ops.linear(activation(ops, gate) * up, **p["down"])
