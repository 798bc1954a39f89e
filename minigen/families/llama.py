"""Llama (Touvron et al. 2023; Llama 3) and the names that its many relatives share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from minigen.families.family import Buffer, Family, HubConfig, Source
from minigen.families.gguf import LLAMA_KEYS, LLAMA_TENSORS, GGUFNames, llama_config
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
    window: Callable[[int], int | None] = lambda layer: None,
) -> CausalLM:
    """A decoder in Llama's layout. `window(layer)` is a layer's sliding window, None for full attention."""
    width, heads, layers = (
        c.integer("hidden_size"),
        c.integer("num_attention_heads"),
        c.layers("num_hidden_layers"),
    )
    kv_heads = c.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        raise c.fail("num_key_value_heads", f"it must divide the {heads} attention heads")
    head_dim = head_dim or c.head_dim(width, heads)
    norm = RMSNorm(c.number("rms_norm_eps", 1e-6))
    rotation = rotary(c, head_dim)
    feed_forward = GatedFeedForward(c.integer("intermediate_size"), c.activation("hidden_act", "silu"), mlp_bias)

    def block(layer: int) -> PreNormBlock:
        attention = Attention(
            heads,
            kv_heads,
            head_dim,
            qkv_bias=qkv_bias,
            out_bias=out_bias,
            rotary=rotation,
            qk_norm=norm if qk_norm else None,
            window=window(layer),
        )
        return PreNormBlock(attention, feed_forward, norm)

    return CausalLM(
        vocab_size=c.integer("vocab_size"),
        width=width,
        context=c.integer("max_position_embeddings", 2048),
        blocks=tuple(block(i) for i in range(layers)),
        norm=norm,
        tied=c.tied(default=False),
    )


def build(c: HubConfig) -> CausalLM:
    attention_bias = c.flag("attention_bias", False)
    types = c.get("layer_types")
    if isinstance(types, list) and "sliding_attention" in types:
        c.warn("layer_types has sliding_attention, and a llama has full attention in every layer, which counts")
    return decoder(c, qkv_bias=attention_bias, out_bias=attention_bias, mlp_bias=c.flag("mlp_bias", False))


def linear(path: str, *names: str) -> dict[str, Source]:
    return {
        f"blocks.{{layer}}.{path}.{part}": Source(tuple(f"model.layers.{{layer}}.{name}.{part}" for name in names))
        for part in ("weight", "bias")
    }


NAMES = {
    "embedding.weight": Source(("model.embed_tokens.weight",)),
    "blocks.{layer}.norm1.weight": Source(("model.layers.{layer}.input_layernorm.weight",)),
    **linear("attention.qkv", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    **linear("attention.q_norm", "self_attn.q_norm"),
    **linear("attention.k_norm", "self_attn.k_norm"),
    **linear("attention.out", "self_attn.o_proj"),
    "blocks.{layer}.norm2.weight": Source(("model.layers.{layer}.post_attention_layernorm.weight",)),
    **linear("feed_forward.gate_up", "mlp.gate_proj", "mlp.up_proj"),
    **linear("feed_forward.down", "mlp.down_proj"),
    "norm.weight": Source(("model.norm.weight",)),
    "head.weight": Source(("lm_head.weight",)),
}


def has_same_frequencies(architecture: CausalLM, tensor: TensorInfo) -> bool:
    """Whether these are the rotary frequencies of the config, to the precision that they are stored in.

    Linear scaling may be left out: where it divided the positions, it was not in the frequencies.
    """
    own = architecture.attentions[0].rotary
    if own is None or tensor.dtype not in TOLERANCE or tensor.shape != (own.dims // 2,):
        return False
    stored = np.concatenate(list(parts(tensor)))
    computed = (own.frequencies(), replace(own, scaling=None).frequencies())
    return any(np.allclose(stored, x, rtol=TOLERANCE[tensor.dtype], atol=1e-7) for x in computed)


TOLERANCE = {"F64": 1e-4, "F32": 1e-4, "F16": 2e-3, "BF16": 2e-2}  # of frequencies by their dtype, relative
FREQUENCIES = Buffer(has_same_frequencies, "the rotary frequencies of its config.json (rope_theta, rope_scaling)")


def family(build: Callable[[HubConfig], CausalLM], gguf: GGUFNames | None = None) -> Family:
    """A family with Llama's names."""
    ignored = {r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq": FREQUENCIES}
    return Family(build, NAMES, prefix="model.", ignored=ignored, gguf=gguf)


FAMILY = family(build, GGUFNames(LLAMA_KEYS, LLAMA_TENSORS, llama_config, interleaved=True))
