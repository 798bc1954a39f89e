"""Mistral 7B (Jiang et al. 2023): Llama with a sliding window on every layer, or on those that layer_types names."""

from __future__ import annotations

from minigen.families.family import HubConfig
from minigen.families.llama import decoder, family
from minigen.families.qwen2 import SLIDING, check_window, layer_types
from minigen.models.causal import CausalLM


def build(c: HubConfig) -> CausalLM:
    c = c.with_defaults(sliding_window=4096, num_key_value_heads=8)
    window = None if c.get("sliding_window") is None else c.integer("sliding_window")
    if window is not None and c.get("use_sliding_window") is False:
        c.warn(f"use_sliding_window is false, which a mistral does not read: sliding_window, {window}, counts")
    types = layer_types(c)
    if types is None:
        return decoder(c, window=lambda layer: window)
    check_window(c, types, window)
    return decoder(c, window=lambda layer: window if types[layer] == SLIDING else None)


FAMILY = family(build)
