"""Qwen2 and Qwen2.5 (Yang et al. 2024).

Llama with biases on query, key and value, and an optional sliding window on the upper layers.
"""

from __future__ import annotations

from minigen.families.family import HubConfig
from minigen.families.llama import decoder, family
from minigen.families.sliding import qwen_windows
from minigen.models.causal import CausalLM


def build(c: HubConfig) -> CausalLM:
    """The architecture of a Qwen2 config.json."""
    c = c.with_defaults(num_key_value_heads=32)
    return decoder(c, qkv_bias=True, windows=qwen_windows(c))


FAMILY = family(build)
