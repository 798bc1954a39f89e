"""Attention by torch's kernels."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from minigen.backends.base import Array

FLASH_WIDTH = 256  # the widest heads that flash attention takes


def attention(q: Array, k: Array, v: Array, scale: float, mask: Array | str | None) -> Array:
    """As `Backend.attention`, of numbers that are not quantized."""
    B, H, T, D = q.shape
    G, S = k.shape[1], k.shape[2]
    grouped = H != G
    if isinstance(mask, str):  # "causal"
        if T == S:
            return F.scaled_dot_product_attention(
                q, k, v, is_causal=True, scale=scale, enable_gqa=grouped
            )
        # is_causal counts from the first key; a cache needs it counted from the last
        if T == 1:
            mask = None
        else:
            mask = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    if T == 1 and grouped:
        # The heads of a group become its queries, so that the cache is not copied for each head.
        q = q.reshape(B, G, H // G, D)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
        return y.reshape(B, H, T, D)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=grouped)


def for_fast_attention(
    q: Array, k: Array, v: Array, mask: Array | str | None
) -> tuple[Array, Array]:
    """Keys and values (B, G, S, D) in the form that lets torch choose a fast kernel on a GPU.

    They are repeated to one per head of q (B, H, T, D) if no kernel for grouped heads applies.
    torch has one in flash attention, for 16-bit numbers and no mask but the causal one of T = S.
    Otherwise torch would use a kernel that stores all scores (B, H, T, S): the memory-efficient one
    takes any mask, but needs as many heads of keys as of queries. A single query per head needs no
    copies (see `attention`).
    """
    H, T, D = q.shape[1:]
    G, S = k.shape[1:3]
    unmasked = mask is None or (isinstance(mask, str) and T == S)
    flash = unmasked and q.dtype in (torch.bfloat16, torch.float16) and D <= FLASH_WIDTH
    if T == 1 or H == G or flash:
        return k, v
    return repeat_heads(k, H // G), repeat_heads(v, H // G)


def repeat_heads(x: Array, times: int) -> Array:
    """x (B, G, S, D) -> (B, G * times, S, D): each head follows itself."""
    return x[:, :, None].expand(-1, -1, times, -1, -1).flatten(1, 2)
