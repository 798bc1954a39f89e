"""Attention that reads the codes of quantized keys and values, without a copy of the cache."""

from __future__ import annotations

import mlx.core as mx

from minigen.backends.base import Array, Quantized
from minigen.backends.quantized import GROUPS, Held

FEW = 16  # new tokens per row; with more, scores (T, S) cost more than unpacking a cache


def reads_codes(x: Held) -> bool:
    """Whether MLX can multiply with these codes: it does not know the group sizes of narrow heads."""
    return isinstance(x, Quantized) and x.group in GROUPS


def quantized_attention(
    q: Array, k: Quantized, v: Quantized, scale: float, mask: Array | str | None
) -> Array:
    """As `Backend.attention`, by two products with quantized matrices; the softmax is in float32."""
    B, H, T, D = q.shape
    G, S = k.shape[1], k.shape[2]
    # The heads of a group are rows of one product with its keys.
    rows = (q * scale).reshape(B, G, H // G * T, D)
    scores = mx.quantized_matmul(rows, k.packed, k.scales, k.biases, True, k.group, k.bits)
    scores = scores.reshape(B, G, H // G, T, S).astype(mx.float32)
    if isinstance(mask, str):  # "causal"
        seen = mx.arange(S)[None] <= mx.arange(S - T, S)[:, None]
        scores = mx.where(seen, scores, -mx.inf)
    elif mask is not None:  # (B or 1, 1, T, S)
        scores = mx.where(mask[:, :, None], scores, -mx.inf)
    weights = mx.softmax(scores, axis=-1).astype(q.dtype).reshape(B, G, H // G * T, S)
    found = mx.quantized_matmul(weights, v.packed, v.scales, v.biases, False, v.group, v.bits)
    return found.reshape(B, H, T, D)
