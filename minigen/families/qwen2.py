"""Qwen2 and Qwen2.5 (Yang et al. 2024): Llama with biases on query, key and value, and a window on upper layers."""

from __future__ import annotations

from collections.abc import Callable

from minigen.decoder import Decoder
from minigen.families.family import HubConfig
from minigen.families.llama import decoder, family

LAYER_TYPES = ("full_attention", "sliding_attention")


def sliding_layers(c: HubConfig) -> Callable[[int], int | None]:
    """Each layer's window: by layer_types where they are given, else from max_window_layers on."""
    types = c.get("layer_types")
    if types is not None:
        layers = c.layers("num_hidden_layers")
        if not isinstance(types, list) or len(types) != layers or any(t not in LAYER_TYPES for t in types):
            raise c.fail("layer_types", f"it must be {layers} of {', '.join(LAYER_TYPES)}")
    c = c.with_defaults(sliding_window=4096)
    if not c.flag("use_sliding_window", False) or c.get("sliding_window") is None:
        return lambda layer: None
    window, first = c.integer("sliding_window"), c.get("max_window_layers", 28)
    if type(first) is not int or first < 0:
        raise c.fail("max_window_layers", "it must be a whole number >= 0")
    if types is None:
        return lambda layer: window if layer >= first else None
    return lambda layer: window if types[layer] == "sliding_attention" else None


def build(c: HubConfig) -> Decoder:
    c = c.with_defaults(num_key_value_heads=32)
    return decoder(c, qkv_bias=True, window=sliding_layers(c))


FAMILY = family(build)
