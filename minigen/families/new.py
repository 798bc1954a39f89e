"""The config.json of a new model that `minigen train` can start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from minigen.errors import UsageError

Values = dict[str, Any]
Ends = Mapping[str, int | None]


class Shape(Protocol):
    """What the user chooses. 0 for `kv_heads` and `hidden` means what is usual in the family."""

    @property
    def model(self) -> str: ...
    @property
    def layers(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def hidden(self) -> int: ...
    @property
    def context(self) -> int: ...
    @property
    def tied(self) -> bool: ...
    @property
    def dropout(self) -> float: ...


def new_config(shape: Shape, vocab: int, ends: Ends, dtype: str) -> Values:
    """The config.json of a new model.

    Args:
        shape: Its sizes; `shape.model` is a key of NEW_MODELS.
        vocab: The number of token ids.
        ends: Its bos_token_id and eos_token_id.
        dtype: The dtype its weights are saved in.

    Raises UsageError: the family has no such shape.
    """
    return NEW_MODELS[shape.model](shape, vocab, ends, dtype)


def check_heads(shape: Shape) -> None:
    """Raises UsageError if the heads do not divide the width."""
    if shape.width % shape.heads:
        raise UsageError(
            f"width is {shape.width}: it must be a multiple of the {shape.heads} heads"
        )


def with_ends(values: Values, shape: Shape, ends: Ends, dtype: str) -> Values:
    """Adds the settings that decoders share.

    Tokens that do not exist are written as null; without that, transformers would use default ids,
    which may be outside the vocabulary.
    """
    return {**values, "tie_word_embeddings": shape.tied, **ends, "torch_dtype": dtype}


def gpt(shape: Shape, vocab: int, ends: Ends, dtype: str) -> Values:
    """GPT-2."""
    check_heads(shape)
    if shape.kv_heads not in (0, shape.heads):
        raise UsageError(
            f"kv_heads is {shape.kv_heads}: a gpt has one for each of its {shape.heads} heads; "
            "leave kv_heads out, or train a llama"
        )
    values = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": vocab,
        "n_embd": shape.width,
        "n_head": shape.heads,
        "n_layer": shape.layers,
        "n_positions": shape.context,
        "n_inner": shape.hidden or 4 * shape.width,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "attn_pdrop": shape.dropout,
        "embd_pdrop": shape.dropout,
        "resid_pdrop": shape.dropout,
    }
    return with_ends(values, shape, ends, dtype)


def llama(shape: Shape, vocab: int, ends: Ends, dtype: str) -> Values:
    """Llama."""
    check_heads(shape)
    kv_heads = shape.kv_heads or shape.heads
    head_dim = shape.width // shape.heads
    if shape.heads % kv_heads:
        raise UsageError(f"kv_heads is {kv_heads}: it must divide the {shape.heads} heads")
    if head_dim % 2:
        raise UsageError(
            f"width {shape.width} over {shape.heads} heads is {head_dim}: "
            "it must be even, for rotary positions"
        )
    # Three matrices instead of GPT's two: two thirds of its hidden width, rounded to 32.
    usual_hidden = -(-8 * shape.width // 3 // 32) * 32
    values = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": vocab,
        "hidden_size": shape.width,
        "intermediate_size": shape.hidden or usual_hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": shape.context,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "mlp_bias": False,
    }
    return with_ends(values, shape, ends, dtype)


def recurrent(shape: Shape, vocab: int, ends: Ends, dtype: str) -> Values:
    """LSTM, GRU and RNN."""
    hidden = shape.hidden or shape.width
    if shape.tied and hidden != shape.width:
        raise UsageError(
            f"hidden is {hidden} and width is {shape.width}: they must be equal in a model "
            "whose head is its embedding; use --no-tied, or change one"
        )
    values: Values = {
        "model_type": f"{shape.model}_lm",
        "vocab_size": vocab,
        "embedding_size": shape.width,
        "hidden_size": hidden,
        "num_layers": shape.layers,
        "tie_word_embeddings": shape.tied,
    }
    for name, token in ends.items():
        if token is not None:
            values[name] = token
    return values


NEW_MODELS: dict[str, Callable[[Shape, int, Ends, str], Values]] = {
    "gpt": gpt,
    "llama": llama,
    "lstm": recurrent,
    "gru": recurrent,
    "rnn": recurrent,
}
