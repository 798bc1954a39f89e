"""Mistral 7B (Jiang et al. 2023): Llama with a sliding window.

The window is on every layer, or on those that layer_types names.
"""

from __future__ import annotations

from minigen.families.family import HubConfig
from minigen.families.llama import decoder, family
from minigen.families.sliding import check_window, layer_types, windows_by_type
from minigen.models.causal import CausalLM


def build(c: HubConfig) -> CausalLM:
    """The architecture of a Mistral config.json."""
    c = c.with_defaults(sliding_window=4096, num_key_value_heads=8)
    window = None
    if c.get("sliding_window") is not None:
        window = c.integer("sliding_window")
    if window is not None and c.get("use_sliding_window") is False:
        c.warn(
            "use_sliding_window is false, but Mistral models do not have that setting: using "
            f"sliding_window {window}"
        )
    types = layer_types(c)
    if types is None:
        return decoder(c, windows=[window] * c.layers("num_hidden_layers"))
    check_window(c, types, window)
    return decoder(c, windows=windows_by_type(types, window))


FAMILY = family(build)
