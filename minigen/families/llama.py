"""Llama (Touvron et al. 2023) and the layout and names that its many relatives share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from minigen.families.family import Buffer, Family, HubConfig, Source
from minigen.families.rope import rotary
from minigen.families.stored import parts
from minigen.layers.attention import Attention
from minigen.layers.block import PreNormBlock
from minigen.layers.feed_forward import GatedFeedForward
from minigen.layers.norm import RMSNorm
from minigen.models.causal import CausalLM
from minigen.models.tensor_info import TensorInfo


def decoder(
    c: HubConfig,
    *,
    qkv_bias: bool = False,
    out_bias: bool = False,
    mlp_bias: bool = False,
    head_dim: int | None = None,
    qk_norm: bool = False,
    windows: Sequence[int | None] | None = None,
) -> CausalLM:
    """A decoder in Llama's layout.

    Args:
        c: Its config.json.
        qkv_bias, out_bias, mlp_bias: Which linear layers have a bias.
        head_dim: The width of a head; None: what the config says.
        qk_norm: Whether queries and keys are normalized.
        windows: The sliding window of each layer, None in it for full attention; None: full
            attention in all layers.

    Raises CheckpointError: a value of the config cannot be used.
    """
    width = c.integer("hidden_size")
    heads = c.integer("num_attention_heads")
    layers = c.layers("num_hidden_layers")
    kv_heads = c.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        raise c.fail("num_key_value_heads", f"it must divide the {heads} attention heads")
    head_dim = head_dim or c.head_dim(width, heads)
    norm = RMSNorm(c.number("rms_norm_eps", 1e-6))
    rotation = rotary(c, head_dim)
    activation = c.activation("hidden_act", "silu")
    feed_forward = GatedFeedForward(c.integer("intermediate_size"), activation, mlp_bias)

    def block(window: int | None) -> PreNormBlock:
        attention = Attention(
            heads,
            kv_heads,
            head_dim,
            qkv_bias=qkv_bias,
            out_bias=out_bias,
            rotary=rotation,
            qk_norm=norm if qk_norm else None,
            window=window,
        )
        return PreNormBlock(attention, feed_forward, norm)

    if windows is None:
        windows = [None] * layers
    return CausalLM(
        vocab_size=c.integer("vocab_size"),
        width=width,
        context=c.integer("max_position_embeddings", 2048),
        blocks=tuple(block(window) for window in windows),
        norm=norm,
        tied=c.tied(default=False),
    )


def build(c: HubConfig) -> CausalLM:
    """The architecture of a Llama config.json."""
    bias = c.flag("attention_bias", False)
    types = c.get("layer_types")
    if isinstance(types, list) and "sliding_attention" in types:
        c.warn(
            "layer_types has sliding_attention, which Llama models do not have: "
            "using full attention in every layer"
        )
    return decoder(c, qkv_bias=bias, out_bias=bias, mlp_bias=c.flag("mlp_bias", False))


def linear(path: str, *names: str) -> dict[str, Source]:
    """The sources of a linear layer in each block, which may be stored in several parts."""
    sources = {}
    for part in ("weight", "bias"):
        stored = tuple(f"model.layers.{{layer}}.{name}.{part}" for name in names)
        sources[f"blocks.{{layer}}.{path}.{part}"] = Source(stored)
    return sources


NAMES = {
    "embedding.weight": Source(("model.embed_tokens.weight",)),
    "blocks.{layer}.norm1.weight": Source(("model.layers.{layer}.input_layernorm.weight",)),
    **linear("attention.qkv", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    **linear("attention.q_norm", "self_attn.q_norm"),
    **linear("attention.k_norm", "self_attn.k_norm"),
    **linear("attention.out", "self_attn.o_proj"),
    "blocks.{layer}.norm2.weight": Source(
        ("model.layers.{layer}.post_attention_layernorm.weight",)
    ),
    **linear("feed_forward.gate_up", "mlp.gate_proj", "mlp.up_proj"),
    **linear("feed_forward.down", "mlp.down_proj"),
    "norm.weight": Source(("model.norm.weight",)),
    "head.weight": Source(("lm_head.weight",)),
}


def has_same_frequencies(architecture: CausalLM, tensor: TensorInfo) -> bool:
    """Whether these are the rotary frequencies of the config, to the precision they are stored in.

    They may be without linear scaling, which some programs apply to the positions instead.
    """
    own = architecture.attentions[0].rotary
    if own is None or tensor.dtype not in TOLERANCE or tensor.shape != (own.dims // 2,):
        return False
    stored = np.concatenate(list(parts(tensor)))
    for variant in (own, replace(own, scaling=None)):
        if np.allclose(stored, variant.frequencies(), rtol=TOLERANCE[tensor.dtype], atol=1e-7):
            return True
    return False


# The relative tolerance for frequencies, by the dtype they are stored in.
TOLERANCE = {"F64": 1e-4, "F32": 1e-4, "F16": 2e-3, "BF16": 2e-2}
FREQUENCIES = Buffer(
    has_same_frequencies, "the rotary frequencies of its config.json (rope_theta, rope_scaling)"
)


def family(build: Callable[[HubConfig], CausalLM]) -> Family:
    """A family whose checkpoints use Llama's names."""
    ignored = {r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq": FREQUENCIES}
    return Family(build, NAMES, prefix="model.", ignored=ignored)


FAMILY = family(build)
