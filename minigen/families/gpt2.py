"""GPT-2 (Radford et al. 2019).

Learned positions, layer norm, a plain feed-forward network, and Conv1D weights stored as (in, out).
"""

from __future__ import annotations

import math
from math import prod

import numpy as np

from minigen.families.family import Buffer, Family, HubConfig, Source
from minigen.families.stored import AT_ONCE, parts
from minigen.layers.attention import Attention
from minigen.layers.block import PreNormBlock
from minigen.layers.feed_forward import PlainFeedForward
from minigen.layers.norm import LayerNorm
from minigen.layers.positions import LearnedPositions
from minigen.models import stored_dtypes
from minigen.models.causal import CausalLM
from minigen.models.tensor_info import TensorInfo

# GPT-2 adds -10000 to the scores of later tokens to hide them; bfloat16 rounds that to -9984.
HIDDEN = -9.9e3


def build(c: HubConfig) -> CausalLM:
    """The architecture of a GPT-2 config.json."""
    width = c.integer(c.one_of("n_embd", "hidden_size"))
    heads = c.integer(c.one_of("n_head", "num_attention_heads"))
    layers = c.layers(c.one_of("n_layer", "num_hidden_layers"))
    head_dim = c.head_dim(width, heads)
    context = context_of(c)
    norm = LayerNorm(c.number("layer_norm_epsilon", 1e-5))
    activation = c.activation("activation_function", "gelu_new")
    feed_forward = PlainFeedForward(c.integer("n_inner", 4 * width), activation)

    def block(layer: int) -> PreNormBlock:
        scale = 1.0
        if c.flag("scale_attn_weights", True):
            scale = 1 / math.sqrt(head_dim)
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


def context_of(c: HubConfig) -> int:
    """The number of positions. Warns if n_ctx contradicts it."""
    key = c.one_of("n_positions", "max_position_embeddings")
    context = c.integer(key, c.integer("n_ctx", 1024))
    if c.get("n_ctx", context) != context:
        c.warn(f"n_ctx is {c.integer('n_ctx')}, but {key} is {context}: using {context}")
    return context


def conv1d(path: str, name: str) -> dict[str, Source]:
    """The sources of a linear layer in each block."""
    stored = f"transformer.h.{{layer}}.{name}"
    return {
        f"blocks.{{layer}}.{path}.weight": Source((f"{stored}.weight",), transposed=True),
        f"blocks.{{layer}}.{path}.bias": Source((f"{stored}.bias",)),
    }


def norm(path: str, name: str) -> dict[str, Source]:
    """The sources of a layer norm."""
    return {
        f"{path}.weight": Source((f"transformer.{name}.weight",)),
        f"{path}.bias": Source((f"transformer.{name}.bias",)),
    }


def is_causal(architecture: CausalLM, tensor: TensorInfo) -> bool:
    """Whether this is a mask (1, 1, T, T) in which a token sees itself and those before it."""
    if len(tensor.shape) != 4 or tensor.dtype not in stored_dtypes.NAMES:
        return False
    size = tensor.shape[-1]
    if tensor.shape != (1, 1, size, size):
        return False
    rows_per_part = max(1, AT_ONCE // max(size, 1))
    first = 0
    for part in parts(tensor, rows_per_part * size):
        rows = part.reshape(-1, size)
        if not np.array_equal(rows, np.tri(len(rows), size, first)):
            return False
        first += len(rows)
    return True


def hides(architecture: CausalLM, tensor: TensorInfo) -> bool:
    """Whether this is one number that hides a token when it is added to the token's score."""
    if prod(tensor.shape) != 1 or tensor.dtype not in stored_dtypes.NAMES:
        return False
    return bool(next(parts(tensor))[0] <= HIDDEN)


FAMILY = Family(
    build=build,
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
