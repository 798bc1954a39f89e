"""LFM2 (Liquid AI 2025): a stack of gated short convolutions with a layer of attention here and there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from minigen.families.family import Family, HubConfig, Source
from minigen.families.gguf import LLAMA_KEYS, Config, GGUFNames
from minigen.families.llama import linear
from minigen.families.rope import rotary
from minigen.layers.attention import Attention
from minigen.layers.block import Block, ConvolutionBlock, PreNormBlock
from minigen.layers.feed_forward import GatedFeedForward
from minigen.layers.norm import RMSNorm
from minigen.layers.short_convolution import ShortConvolution
from minigen.models.causal import CausalLM

KINDS = ("conv", "full_attention")


def layer_kinds(c: HubConfig, layers: int) -> list[str]:
    """Of each layer: layer_types, or full_attn_idxs, the numbers of those with attention."""
    kinds = c.get("layer_types")
    if kinds is None:
        numbers = c.get("full_attn_idxs")
        attending = range(layers) if numbers is None else numbers
        return ["full_attention" if layer in attending else "conv" for layer in range(layers)]
    if not isinstance(kinds, list) or len(kinds) != layers or any(kind not in KINDS for kind in kinds):
        raise c.fail("layer_types", f"it must have {' or '.join(KINDS)} for each of the {layers} layers")
    return kinds


def hidden_width(c: HubConfig) -> int:
    """That of the feed-forward; block_auto_adjust_ff_dim takes two thirds of what is written, rounded up."""
    hidden = c.integer(c.one_of("block_ff_dim", "intermediate_size"))
    if not c.flag("block_auto_adjust_ff_dim", True):
        return hidden
    hidden = int(2 * hidden / 3)
    if c.get("block_ffn_dim_multiplier", 1.0) is None:
        return hidden
    multiple = c.integer("block_multiple_of", 256)
    hidden = int(c.number("block_ffn_dim_multiplier", 1.0) * hidden)
    return -(-hidden // multiple) * multiple


def build(c: HubConfig) -> CausalLM:
    c = c.with_defaults(rope_theta=1000000.0, num_key_value_heads=8)
    width, heads, layers = c.integer("hidden_size"), c.integer("num_attention_heads"), c.layers("num_hidden_layers")
    head_dim, norm = c.head_dim(width, heads), RMSNorm(c.number("norm_eps", 1e-5))
    kv_heads = c.integer("num_key_value_heads")
    if heads % kv_heads:
        raise c.fail("num_key_value_heads", f"it must divide the {heads} attention heads")
    feed_forward = GatedFeedForward(hidden_width(c), "silu")
    attention = Attention(heads, kv_heads, head_dim, rotary=rotary(c, head_dim), qk_norm=norm)
    convolution = ShortConvolution(width, c.integer("conv_L_cache", 3), c.flag("conv_bias", False))
    blocks: dict[str, Block] = {
        "full_attention": PreNormBlock(attention, feed_forward, norm),
        "conv": ConvolutionBlock(convolution, feed_forward, norm),
    }
    return CausalLM(
        vocab_size=c.integer("vocab_size"),
        width=width,
        context=c.integer("max_position_embeddings", 128000),
        blocks=tuple(blocks[kind] for kind in layer_kinds(c, layers)),
        norm=norm,
        tied=c.tied(default=True),
    )


def gguf_config(config: Config, values: Mapping[str, Any], names: Collection[str]) -> Config:
    """A layer without heads of keys is a convolution; the width of the feed-forward is the final one."""
    kv_heads = values.get("attention.head_count_kv", [])
    config["layer_types"] = ["full_attention" if count else "conv" for count in kv_heads]
    config["num_key_value_heads"] = max(kv_heads, default=0)
    config["block_auto_adjust_ff_dim"] = False
    return config


GGUF = GGUFNames(
    keys={
        **LLAMA_KEYS,
        "attention.layer_norm_rms_epsilon": "norm_eps",
        "shortconv.l_cache": "conv_L_cache",
    },
    tensors={
        "token_embd": "model.embed_tokens",
        "token_embd_norm": "model.embedding_norm",
        "output": "lm_head",
        "blk.{layer}.attn_norm": "model.layers.{layer}.operator_norm",
        "blk.{layer}.attn_q": "model.layers.{layer}.self_attn.q_proj",
        "blk.{layer}.attn_k": "model.layers.{layer}.self_attn.k_proj",
        "blk.{layer}.attn_v": "model.layers.{layer}.self_attn.v_proj",
        "blk.{layer}.attn_q_norm": "model.layers.{layer}.self_attn.q_layernorm",
        "blk.{layer}.attn_k_norm": "model.layers.{layer}.self_attn.k_layernorm",
        "blk.{layer}.attn_output": "model.layers.{layer}.self_attn.out_proj",
        "blk.{layer}.shortconv.in_proj": "model.layers.{layer}.conv.in_proj",
        "blk.{layer}.shortconv.conv": "model.layers.{layer}.conv.conv",
        "blk.{layer}.shortconv.out_proj": "model.layers.{layer}.conv.out_proj",
        "blk.{layer}.ffn_norm": "model.layers.{layer}.ffn_norm",
        "blk.{layer}.ffn_gate": "model.layers.{layer}.feed_forward.w1",
        "blk.{layer}.ffn_up": "model.layers.{layer}.feed_forward.w3",
        "blk.{layer}.ffn_down": "model.layers.{layer}.feed_forward.w2",
    },
    finish=gguf_config,
    axes={"blk.{layer}.shortconv.conv": 1},
)

FAMILY = Family(
    build,
    {
        "embedding.weight": Source(("model.embed_tokens.weight",)),
        "blocks.{layer}.norm1.weight": Source(("model.layers.{layer}.operator_norm.weight",)),
        **linear("attention.qkv", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        **linear("attention.q_norm", "self_attn.q_layernorm"),
        **linear("attention.k_norm", "self_attn.k_layernorm"),
        **linear("attention.out", "self_attn.out_proj"),
        **linear("convolution.in", "conv.in_proj"),
        **linear("convolution.kernel", "conv.conv"),
        **linear("convolution.out", "conv.out_proj"),
        "blocks.{layer}.norm2.weight": Source(("model.layers.{layer}.ffn_norm.weight",)),
        **linear("feed_forward.gate_up", "feed_forward.w1", "feed_forward.w3"),
        **linear("feed_forward.down", "feed_forward.w2"),
        "norm.weight": Source(("model.embedding_norm.weight",)),
        "head.weight": Source(("lm_head.weight",)),
    },
    prefix="model.",
    gguf=GGUF,
)
