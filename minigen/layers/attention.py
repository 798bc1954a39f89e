"""Self-attention with a cache of keys and values: multi-head, multi-query, and grouped-query.

Grouped-query attention is from Ainslie et al. 2023.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from minigen.backends.base import Array, Backend
from minigen.layers.norm import Norm
from minigen.layers.param import Param, linear_shapes, scale_down
from minigen.layers.positions import Rotary
from minigen.layers.slot import ALL, LayerSlots, Slot
from minigen.layers.step import Step


@dataclass(frozen=True)
class Attention:
    """Causal self-attention.

    The query, key and value projections are one matrix, so that a decode step reads their weights
    in one operation.

    Fields:
        heads: The number of query heads.
        kv_heads: The number of key and value heads; divides `heads`.
        head_dim: The width of a head.
        qkv_bias, out_bias: Whether the projections have a bias.
        rotary: The rotation of queries and keys, or None.
        qk_norm: A norm over each query and key head, applied before the rotation, or None.
        window: A token sees itself and the `window - 1` tokens before it; None: all before it.
        scale: What dot products are multiplied by; None: 1 / sqrt(head_dim).
    """

    heads: int
    kv_heads: int
    head_dim: int
    qkv_bias: bool = False
    out_bias: bool = False
    rotary: Rotary | None = None
    qk_norm: Norm | None = None
    window: int | None = None
    scale: float | None = None

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The number of rows of the query, key and value projections."""
        queries = self.heads * self.head_dim
        keys = self.kv_heads * self.head_dim
        return queries, keys, keys

    def shapes(self, width: int, layers: int) -> dict[str, Any]:
        """The parameters, as `Block.shapes` describes them."""
        qkv = linear_shapes(width, sum(self.sizes), self.qkv_bias, parts=self.sizes)
        shapes: dict[str, dict[str, Param]] = {"qkv": qkv}
        if self.qk_norm is not None:
            shapes["q_norm"] = self.qk_norm.shapes(self.head_dim)
            shapes["k_norm"] = self.qk_norm.shapes(self.head_dim)
        shapes["out"] = scale_down(linear_shapes(self.sizes[0], width, self.out_bias), layers)
        return shapes

    def slots(self) -> dict[str, Slot]:
        """The keys and values of all tokens."""
        slot = Slot((self.kv_heads, self.head_dim), ALL)
        return {"k": slot, "v": slot}

    def apply(self, ops: Backend, p: Any, x: Array, step: Step, slots: LayerSlots | None) -> Array:
        """x (B, T, C) -> (B, T, C); the arguments are those of `Block.apply`."""
        B, T, _ = x.shape
        q, k, v = ops.split(ops.linear(x, **p["qkv"]), self.sizes, axis=-1)
        q = q.reshape(B, T, self.heads, self.head_dim)
        k = k.reshape(B, T, self.kv_heads, self.head_dim)
        v = v.reshape(B, T, self.kv_heads, self.head_dim)
        if self.qk_norm is not None:
            q = self.qk_norm.apply(ops, p["q_norm"], q)
            k = self.qk_norm.apply(ops, p["k_norm"], k)
        q, k, v = (ops.permute(t, (0, 2, 1, 3)) for t in (q, k, v))  # (B, heads, T, D)

        def rotate(x: Array, step: Step) -> Array:
            if self.rotary is None:
                return x
            return self.rotary.apply(ops, x, step)

        k = rotate(k, step)
        if slots is not None:
            k, v = slots.append(ops, {"k": k, "v": v})
        step.lend("k", k)
        step.lend("v", v)
        scale = self.scale
        if scale is None:
            scale = 1 / math.sqrt(self.head_dim)
        y = step.attend(ops, q, k, v, rotate, self.window, scale)
        y = ops.permute(y, (0, 2, 1, 3)).reshape(B, T, self.heads * self.head_dim)
        return ops.linear(y, **p["out"])
