"""LFM2 (Liquid AI 2025): gated short convolutions, with attention in some of the layers."""

from __future__ import annotations

from minigen.families.family import Family, HubConfig, Source
from minigen.families.llama import linear
from minigen.families.rope import rotary
from minigen.layers.attention import Attention
from minigen.layers.block import Block, ConvolutionBlock, PreNormBlock
from minigen.layers.feed_forward import GatedFeedForward
from minigen.layers.norm import RMSNorm
from minigen.layers.short_convolution import ShortConvolution
from minigen.models.causal import CausalLM

ATTENTION, CONVOLUTION = "full_attention", "conv"
KINDS = (CONVOLUTION, ATTENTION)


def layer_kinds(c: HubConfig, layers: int) -> list[str]:
    """The kind of each layer.

    It is given by layer_types, or by full_attn_idxs: the indices of the layers with attention.
    """
    kinds = c.get("layer_types")
    if kinds is None:
        attending = c.get("full_attn_idxs", range(layers))
        return [ATTENTION if layer in attending else CONVOLUTION for layer in range(layers)]
    known = isinstance(kinds, list) and all(kind in KINDS for kind in kinds)
    if not known or len(kinds) != layers:
        allowed = " or ".join(KINDS)
        raise c.fail("layer_types", f"it must have {allowed} for each of the {layers} layers")
    return list(kinds)


def hidden_width(c: HubConfig) -> int:
    """The width of the feed-forward network.

    With block_auto_adjust_ff_dim it is two thirds of the given one, rounded up to a multiple.
    """
    hidden = c.integer(c.one_of("block_ff_dim", "intermediate_size"))
    if not c.flag("block_auto_adjust_ff_dim", True):
        return hidden
    hidden = int(2 * hidden / 3)
    multiplier = c.with_defaults(block_ffn_dim_multiplier=1.0)
    if multiplier.get("block_ffn_dim_multiplier") is None:
        return hidden
    multiple = c.integer("block_multiple_of", 256)
    hidden = int(multiplier.number("block_ffn_dim_multiplier") * hidden)
    return -(-hidden // multiple) * multiple


def build(c: HubConfig) -> CausalLM:
    """The architecture of an LFM2 config.json."""
    c = c.with_defaults(rope_theta=1000000.0, num_key_value_heads=8)
    width = c.integer("hidden_size")
    heads = c.integer("num_attention_heads")
    layers = c.layers("num_hidden_layers")
    head_dim = c.head_dim(width, heads)
    norm = RMSNorm(c.number("norm_eps", 1e-5))
    kv_heads = c.integer("num_key_value_heads")
    if heads % kv_heads:
        raise c.fail("num_key_value_heads", f"it must divide the {heads} attention heads")
    feed_forward = GatedFeedForward(hidden_width(c), "silu")
    attention = Attention(heads, kv_heads, head_dim, rotary=rotary(c, head_dim), qk_norm=norm)
    filter_length = c.integer("conv_L_cache", 3)
    convolution = ShortConvolution(width, filter_length, c.flag("conv_bias", False))
    blocks: dict[str, Block] = {
        ATTENTION: PreNormBlock(attention, feed_forward, norm),
        CONVOLUTION: ConvolutionBlock(convolution, feed_forward, norm),
    }
    return CausalLM(
        vocab_size=c.integer("vocab_size"),
        width=width,
        context=c.integer("max_position_embeddings", 128000),
        blocks=tuple(blocks[kind] for kind in layer_kinds(c, layers)),
        norm=norm,
        tied=c.tied(default=True),
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
)
