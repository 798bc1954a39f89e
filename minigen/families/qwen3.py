"""Qwen3 (Yang et al. 2025): Llama with RMS norms on queries and keys, and its own head width."""

from __future__ import annotations

from minigen.families.family import HubConfig
from minigen.families.llama import decoder, family
from minigen.families.sliding import qwen_windows
from minigen.models.causal import CausalLM


def build(c: HubConfig) -> CausalLM:
    """The architecture of a Qwen3 config.json."""
    c = c.with_defaults(num_key_value_heads=32)
    bias = c.flag("attention_bias", False)
    return decoder(
        c,
        qkv_bias=bias,
        out_bias=bias,
        head_dim=c.integer("head_dim", 128),
        qk_norm=True,
        windows=qwen_windows(c),
    )


FAMILY = family(build)
