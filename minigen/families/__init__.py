"""Checkpoint families: one short module each, chosen by model_type in config.json."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from minigen.errors import CheckpointError, shown
from minigen.families.family import Family, HubConfig, Source
from minigen.models.architecture import Architecture

__all__ = ["FAMILIES", "Family", "HubConfig", "Source", "build_architecture", "find_family"]

# model_type -> the module that defines its FAMILY
FAMILIES = {
    "gpt2": "gpt2",
    "gru_lm": "gru_lm",
    "lfm2": "lfm2",
    "llama": "llama",
    "lstm_lm": "lstm_lm",
    "mistral": "mistral",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "rnn_lm": "rnn_lm",
}


def find_family(config: Mapping[str, Any]) -> Family:
    """The family of a config.json. Raises CheckpointError if minigen does not know it."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        problem = f"has the unknown model_type {shown(kind)}"
        if kind is None:
            problem = "has no model_type"
        raise CheckpointError(f"config.json {problem}: minigen knows {', '.join(FAMILIES)}")
    family = import_module(f"minigen.families.{FAMILIES[kind]}").FAMILY
    assert isinstance(family, Family)
    return family


def build_architecture(config: Mapping[str, Any], where: str = "config.json") -> Architecture:
    """What a config.json alone says of a model, without its weights; `where` is its name in messages.

    Raises CheckpointError for an unknown family or a value that cannot be.
    """
    return find_family(config).build(HubConfig(config, where))
