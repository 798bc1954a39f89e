"""A layer of the decoder. How its parts meet the residual stream is the class: a new layout is a new class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from minigen.backends.base import Array, Backend
from minigen.layers.attention import Attention, LayerCache
from minigen.layers.feed_forward import FeedForward
from minigen.layers.norm import Norm
from minigen.layers.step import Step


class Block(Protocol):
    @property
    def attention(self) -> Attention: ...

    def shapes(self, width: int, layers: int) -> dict[str, Any]: ...

    def apply(self, ops: Backend, p: Any, x: Array, step: Step, cache: LayerCache | None) -> Array: ...


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

    def apply(self, ops: Backend, p: Any, x: Array, step: Step, cache: LayerCache | None) -> Array:
        """x (B, T, C) -> (B, T, C)."""
        y = self.attention.apply(ops, p["attention"], self.norm.apply(ops, p["norm1"], x), step, cache)
        x = x + ops.dropout(y)
        return x + ops.dropout(self.feed_forward.apply(ops, p["feed_forward"], self.norm.apply(ops, p["norm2"], x)))
