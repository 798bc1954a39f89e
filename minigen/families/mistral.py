"""Mistral 7B (Jiang et al. 2023): Llama with a sliding window on every layer."""

from __future__ import annotations

from minigen.decoder import Decoder
from minigen.families.family import HubConfig
from minigen.families.llama import decoder, family


def build(c: HubConfig) -> Decoder:
    c = c.with_defaults(sliding_window=4096, num_key_value_heads=8)
    window = None if c.get("sliding_window") is None else c.integer("sliding_window")
    return decoder(c, window=lambda layer: window)


FAMILY = family(build)
