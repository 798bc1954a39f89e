"""A layer of the decoder. How its parts meet the residual stream is the class: a new layout is a new class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from minigen.backends.base import Array, Backend
from minigen.layers.attention import Attention
from minigen.layers.feed_forward import FeedForward
from minigen.layers.norm import Norm
from minigen.layers.short_convolution import ShortConvolution
from minigen.layers.slot import LayerSlots, Slots
from minigen.layers.step import Step


class Block(Protocol):
    """A layer. What it has not is empty: a block without parameters, or one that remembers nothing, says so."""

    def shapes(self, width: int, layers: int) -> dict[str, Any]:
        """Its parameters, a Param at each leaf. `layers` is how many the model has: some are drawn smaller for it."""
        ...

    def slots(self) -> Slots:
        """What it remembers, by name."""
        ...

    def apply(self, ops: Backend, p: Any, x: Array, step: Step, slots: LayerSlots | None) -> Array:
        """x (B, T, C) of the new tokens -> (B, T, C'). `slots` is None where the tokens stand alone."""
        ...


@dataclass(frozen=True)
class PreNormBlock:
    """x + attention(norm(x)), then x + feed_forward(norm(x)): GPT-2 and Llama."""

    attention: Attention
    feed_forward: FeedForward
    norm: Norm

    def shapes(self, width: int, layers: int) -> dict[str, Any]:
        return {
            "norm1": self.norm.shapes(width),
            "attention": self.attention.shapes(width, layers),
            "norm2": self.norm.shapes(width),
            "feed_forward": self.feed_forward.shapes(width, layers),
        }

    def slots(self) -> Slots:
        return self.attention.slots()

    def apply(self, ops: Backend, p: Any, x: Array, step: Step, slots: LayerSlots | None) -> Array:
        """x (B, T, C) -> (B, T, C)."""
        y = self.attention.apply(ops, p["attention"], self.norm.apply(ops, p["norm1"], x), step, slots)
        x = x + ops.dropout(y)
        return x + ops.dropout(self.feed_forward.apply(ops, p["feed_forward"], self.norm.apply(ops, p["norm2"], x)))


@dataclass(frozen=True)
class ConvolutionBlock:
    """x + convolution(norm(x)), then x + feed_forward(norm(x)): LFM2."""

    convolution: ShortConvolution
    feed_forward: FeedForward
    norm: Norm

    def shapes(self, width: int, layers: int) -> dict[str, Any]:
        return {
            "norm1": self.norm.shapes(width),
            "convolution": self.convolution.shapes(width, layers),
            "norm2": self.norm.shapes(width),
            "feed_forward": self.feed_forward.shapes(width, layers),
        }

    def slots(self) -> Slots:
        return self.convolution.slots()

    def apply(self, ops: Backend, p: Any, x: Array, step: Step, slots: LayerSlots | None) -> Array:
        """x (B, T, C) -> (B, T, C)."""
        y = self.convolution.apply(ops, p["convolution"], self.norm.apply(ops, p["norm1"], x), step, slots)
        x = x + ops.dropout(y)
        return x + ops.dropout(self.feed_forward.apply(ops, p["feed_forward"], self.norm.apply(ops, p["norm2"], x)))
