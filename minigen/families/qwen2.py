"""Qwen2 and Qwen2.5 (Yang et al. 2024): Llama with biases on query, key and value, and a window on upper layers."""

from __future__ import annotations

from collections.abc import Callable

from minigen.errors import shown
from minigen.families.family import HubConfig
from minigen.families.gguf import LLAMA_KEYS, LLAMA_TENSORS, GGUFNames, qwen_config
from minigen.families.llama import decoder, family
from minigen.models.causal import CausalLM

FULL, SLIDING = "full_attention", "sliding_attention"


def layer_types(c: HubConfig) -> list[str] | None:
    """FULL or SLIDING for each layer, where the config says so."""
    types = c.get("layer_types")
    if types is None:
        return None
    layers = c.layers("num_hidden_layers")
    if not isinstance(types, list) or len(types) != layers or any(t not in (FULL, SLIDING) for t in types):
        raise c.fail("layer_types", f"it must be {layers} of {FULL}, {SLIDING}")
    return list(types)


def check_window(c: HubConfig, types: list[str], window: int | None) -> None:
    """Refuses layers with a window where there is none."""
    if window is None and SLIDING in types:
        names = [name for name in ("use_sliding_window", "sliding_window") if name in c.values]
        said = ", ".join(f"{name} is {shown(c.values[name])}" for name in names)
        raise c.fail("layer_types", f"{said or 'use_sliding_window is not given'}: correct one")


def sliding_layers(c: HubConfig) -> Callable[[int], int | None]:
    """Each layer's window: by layer_types where they are given, else from max_window_layers on."""
    types = layer_types(c)
    given = c.with_defaults(sliding_window=4096)
    on = given.flag("use_sliding_window", False) and given.get("sliding_window") is not None
    window = given.integer("sliding_window") if on else None
    first = c.get("max_window_layers", 28)
    if type(first) is not int or first < 0:
        raise c.fail("max_window_layers", "it must be a whole number >= 0")
    if types is None:
        return lambda layer: window if layer >= first else None
    check_window(c, types, window)
    by_count = [SLIDING if layer >= first else FULL for layer in range(len(types))]
    if window is not None and c.get("max_window_layers") is not None and types != by_count:
        c.warn(f"layer_types and max_window_layers, {first}, differ: layer_types counts")
    return lambda layer: window if types[layer] == SLIDING else None


def build(c: HubConfig) -> CausalLM:
    c = c.with_defaults(num_key_value_heads=32)
    return decoder(c, qkv_bias=True, window=sliding_layers(c))


FAMILY = family(build, GGUFNames(LLAMA_KEYS, LLAMA_TENSORS, qwen_config))
