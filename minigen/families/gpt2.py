"""GPT-2 (Radford et al. 2019): learned positions, layer norm, plain feed-forward, Conv1D weights stored (in, out)."""

from __future__ import annotations

import math
from math import prod

import numpy as np

from minigen.families.family import Buffer, Family, HubConfig, Source
from minigen.families.gguf import GGUFNames
from minigen.families.stored import AT_ONCE, READERS, parts
from minigen.layers.attention import Attention
from minigen.layers.block import PreNormBlock
from minigen.layers.feed_forward import PlainFeedForward
from minigen.layers.norm import LayerNorm
from minigen.layers.positions import LearnedPositions
from minigen.models.causal import CausalLM
from minigen.models.tensor_info import TensorInfo

HIDDEN = -9.9e3  # GPT-2 added -10000 to the scores of tokens to come, which bfloat16 rounds to -9984


def build(c: HubConfig) -> CausalLM:
    width = c.integer(c.one_of("n_embd", "hidden_size"))
    heads = c.integer(c.one_of("n_head", "num_attention_heads"))
    layers = c.layers(c.one_of("n_layer", "num_hidden_layers"))
    head_dim = c.head_dim(width, heads)
    positions = c.one_of("n_positions", "max_position_embeddings")
    context = c.integer(positions, c.integer("n_ctx", 1024))
    if c.get("n_ctx", context) != context:
        c.warn(f"n_ctx is {c.integer('n_ctx')}, and {positions} {context}, which counts")
    norm = LayerNorm(c.number("layer_norm_epsilon", 1e-5))
    feed_forward = PlainFeedForward(c.integer("n_inner", 4 * width), c.activation("activation_function", "gelu_new"))

    def block(layer: int) -> PreNormBlock:
        scale = 1 / math.sqrt(head_dim) if c.flag("scale_attn_weights", True) else 1.0
        if c.flag("scale_attn_by_inverse_layer_idx", False):
            scale /= layer + 1
        attention = Attention(heads, heads, head_dim, qkv_bias=True, out_bias=True, scale=scale)
        return PreNormBlock(attention, feed_forward, norm)

    return CausalLM(
        vocab_size=c.integer("vocab_size"),
        width=width,
        context=context,
        blocks=tuple(block(i) for i in range(layers)),
        norm=norm,
        positions=LearnedPositions(context),
        tied=c.tied(default=True),
    )


def conv1d(path: str, name: str) -> dict[str, Source]:
    return {
        f"blocks.{{layer}}.{path}.weight": Source((f"transformer.h.{{layer}}.{name}.weight",), transposed=True),
        f"blocks.{{layer}}.{path}.bias": Source((f"transformer.h.{{layer}}.{name}.bias",)),
    }


def norm(path: str, name: str) -> dict[str, Source]:
    return {f"{path}.{part}": Source((f"transformer.{name}.{part}",)) for part in ("weight", "bias")}


def is_causal(architecture: CausalLM, tensor: TensorInfo) -> bool:
    """Whether this is a mask (1, 1, T, T) in which a token sees itself and those before it."""
    size = tensor.shape[-1] if tensor.shape else 0
    if tensor.shape != (1, 1, size, size) or tensor.dtype not in READERS:
        return False
    rows = max(1, AT_ONCE // max(size, 1))
    return all(
        np.array_equal(part.reshape(-1, size), np.tri(part.size // size, size, i * rows))
        for i, part in enumerate(parts(tensor, rows * size))
    )


def hides(architecture: CausalLM, tensor: TensorInfo) -> bool:
    """Whether this is one number that leaves nothing of a token it is the score of."""
    if prod(tensor.shape) != 1 or tensor.dtype not in READERS:
        return False
    return bool(next(parts(tensor))[0] <= HIDDEN)


GGUF = GGUFNames(
    keys={
        "context_length": "n_positions",
        "embedding_length": "n_embd",
        "feed_forward_length": "n_inner",
        "block_count": "n_layer",
        "attention.head_count": "n_head",
        "attention.layer_norm_epsilon": "layer_norm_epsilon",
    },
    tensors={
        "token_embd": "model.wte",
        "position_embd": "model.wpe",
        "output_norm": "model.ln_f",
        "output": "lm_head",
        "blk.{layer}.attn_norm": "model.h.{layer}.ln_1",
        "blk.{layer}.attn_qkv": "model.h.{layer}.attn.c_attn",
        "blk.{layer}.attn_output": "model.h.{layer}.attn.c_proj",
        "blk.{layer}.ffn_norm": "model.h.{layer}.ln_2",
        "blk.{layer}.ffn_up": "model.h.{layer}.mlp.c_fc",
        "blk.{layer}.ffn_down": "model.h.{layer}.mlp.c_proj",
    },
)

FAMILY = Family(
    build=build,
    gguf=GGUF,
    prefix="transformer.",
    mlx_prefix="model.",
    names={
        "embedding.weight": Source(("transformer.wte.weight",)),
        "positions.weight": Source(("transformer.wpe.weight",)),
        **norm("blocks.{layer}.norm1", "h.{layer}.ln_1"),
        **conv1d("attention.qkv", "attn.c_attn"),
        **conv1d("attention.out", "attn.c_proj"),
        **norm("blocks.{layer}.norm2", "h.{layer}.ln_2"),
        **conv1d("feed_forward.up", "mlp.c_fc"),
        **conv1d("feed_forward.down", "mlp.c_proj"),
        **norm("norm", "ln_f"),
        "head.weight": Source(("lm_head.weight",)),
    },
    ignored={
        r"h\.\d+\.attn\.bias": Buffer(is_causal, "a causal mask"),
        r"h\.\d+\.attn\.masked_bias": Buffer(hides, "a score that hides a token, such as -10000"),
    },
)
