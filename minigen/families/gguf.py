"""How llama.cpp's files have a family: their metadata as config.json, and their tensors under the hub's names."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from minigen.errors import CheckpointError, shown

Config = dict[str, Any]


@dataclass(frozen=True)
class GGUFNames:
    """A line of a family's file, which makes its GGUF files readable.

    `keys`: keys of config.json by keys of the metadata, without the architecture that these begin with.
    `tensors`: stored names by names in the file, without `.weight` and `.bias`, with `{layer}` in both.
    `finish` changes the config where a table does not say enough. `interleaved`: rows of queries and keys are stored
    in the order that rotates neighbors. `axes`: where the hub's tensor has an axis of length 1 that the file leaves
    out, by the name in the file.
    """

    keys: Mapping[str, str]
    tensors: Mapping[str, str]
    finish: Callable[[Config, Mapping[str, Any], Collection[str]], Config] = lambda config, values, names: config
    interleaved: bool = False
    axes: Mapping[str, int] = field(default_factory=dict)

    def config(self, architecture: str, metadata: Mapping[str, Any], names: Collection[str]) -> Config:
        """config.json of a file with this metadata and tensors of these names, but for ids of tokens.

        Raises CheckpointError for a model that the family does not have.
        """
        start = f"{architecture}."
        values = {key.removeprefix(start): value for key, value in metadata.items() if key.startswith(start)}
        if values.get("expert_count"):
            raise CheckpointError(
                f"{architecture}.expert_count is {shown(values['expert_count'])}: models with experts are not supported"
            )
        config: Config = {"model_type": architecture}
        for key, name in self.keys.items():
            if key in values:
                config[name] = values[key]
        config["tie_word_embeddings"] = "output.weight" not in names
        return self.finish(config, values, names)

    def stored_name(self, name: str) -> str | None:
        """The hub's name of a tensor in the file; None for one that the table does not have."""
        pattern, layer, part = split_name(name)
        if pattern not in self.tensors:
            return None
        return f"{self.tensors[pattern].format(layer=layer)}.{part}"

    def axis(self, name: str) -> int | None:
        """Where the hub's tensor has an axis of length 1 that this one has not."""
        return self.axes.get(split_name(name)[0])


def split_name(name: str) -> tuple[str, str, str]:
    """`blk.3.attn_q.weight` -> `blk.{layer}.attn_q`, "3" and "weight"."""
    module, _, part = name.rpartition(".")
    match = re.fullmatch(r"blk\.(\d+)\.(.+)", module)
    if match is None:
        return module, "", part
    return f"blk.{{layer}}.{match[2]}", match[1], part


LLAMA_KEYS = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
LLAMA_TENSORS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "blk.{layer}.attn_norm": "model.layers.{layer}.input_layernorm",
    "blk.{layer}.attn_q": "model.layers.{layer}.self_attn.q_proj",
    "blk.{layer}.attn_k": "model.layers.{layer}.self_attn.k_proj",
    "blk.{layer}.attn_v": "model.layers.{layer}.self_attn.v_proj",
    "blk.{layer}.attn_q_norm": "model.layers.{layer}.self_attn.q_norm",
    "blk.{layer}.attn_k_norm": "model.layers.{layer}.self_attn.k_norm",
    "blk.{layer}.attn_output": "model.layers.{layer}.self_attn.o_proj",
    "blk.{layer}.ffn_norm": "model.layers.{layer}.post_attention_layernorm",
    "blk.{layer}.ffn_gate": "model.layers.{layer}.mlp.gate_proj",
    "blk.{layer}.ffn_up": "model.layers.{layer}.mlp.up_proj",
    "blk.{layer}.ffn_down": "model.layers.{layer}.mlp.down_proj",
}


def with_scaling(config: Config, values: Mapping[str, Any]) -> Config:
    """With rope_scaling as the hub has it, where the positions are scaled."""
    kind = values.get("rope.scaling.type", "none")
    if kind == "none" or "rope.scaling.factor" not in values:
        return config
    scaling = {"rope_type": kind, "factor": values["rope.scaling.factor"]}
    if "rope.scaling.original_context_length" in values:
        scaling["original_max_position_embeddings"] = values["rope.scaling.original_context_length"]
    return {**config, "rope_scaling": scaling}


def llama_config(config: Config, values: Mapping[str, Any], names: Collection[str]) -> Config:
    """Files leave out what follows from other keys, and older ones how wide a head is."""
    heads = config.get("num_attention_heads", 0)
    rotated = values.get("rope.dimension_count")
    if "head_dim" not in config and rotated is not None and config.get("hidden_size") != heads * rotated:
        config["head_dim"] = rotated
    config.setdefault("num_key_value_heads", heads)
    if "blk.0.attn_q.bias" in names:
        config["attention_bias"] = True
    return with_scaling(config, values)


def qwen_config(config: Config, values: Mapping[str, Any], names: Collection[str]) -> Config:
    """Its biases are a matter of the family."""
    return llama_config(config, values, ())
