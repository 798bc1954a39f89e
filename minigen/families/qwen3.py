"""Qwen3 (Yang et al. 2025): Llama with RMS norms on queries and keys and a head width of its own."""

from __future__ import annotations

from minigen.families.family import HubConfig
from minigen.families.gguf import LLAMA_KEYS, LLAMA_TENSORS, GGUFNames, qwen_config
from minigen.families.llama import decoder, family
from minigen.families.qwen2 import sliding_layers
from minigen.models.causal import CausalLM


def build(c: HubConfig) -> CausalLM:
    c = c.with_defaults(num_key_value_heads=32)
    bias = c.flag("attention_bias", False)
    return decoder(
        c,
        qkv_bias=bias,
        out_bias=bias,
        head_dim=c.integer("head_dim", 128),
        qk_norm=True,
        window=sliding_layers(c),
    )


FAMILY = family(build, GGUFNames(LLAMA_KEYS, LLAMA_TENSORS, qwen_config))
