"""A GGUF file with random weights: written in float32, then converted by llama.cpp."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minigen.errors import MinigenError
from minigen.files import replacing

# Our dtype -> llama.cpp's name.
TYPES = {"bfloat16": "MOSTLY_BF16", "8-bit": "MOSTLY_Q8_0", "4-bit": "MOSTLY_Q4_0"}
SEED = 0


def gguf_of(shape: str, config: Mapping[str, Any], dtype: str, threads: int, cache: Path) -> Path:
    """The file in the folder `cache`, which is created if it does not exist.

    All matrices have the same type, as MLX's do; llama.cpp's usual mixtures keep some of them
    larger.
    """
    cache.mkdir(parents=True, exist_ok=True)
    source = cache / f"{shape}-float32.gguf"
    target = cache / f"{shape}-{dtype}.gguf"
    if not source.exists():
        with replacing(source) as temporary:
            write(config, shape, temporary)
    if not target.exists():
        with replacing(target) as temporary:
            convert(source, dtype, threads, temporary)
    return target


def write(config: Mapping[str, Any], shape: str, path: Path) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, config["model_type"])
    writer.add_name(f"{shape}, random weights")
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(config["vocab_size"])
    gpt2 = config["model_type"] == "gpt2"
    if gpt2:
        keys = ("n_layer", "n_head", "n_head", "n_embd", "n_positions")
    else:
        heads_of = ("num_attention_heads", "num_key_value_heads")
        keys = ("num_hidden_layers", *heads_of, "hidden_size", "max_position_embeddings")
    layers, heads, kv_heads, width, context = (config[key] for key in keys)
    inner = config.get("intermediate_size", 4 * width)
    writer.add_block_count(layers)
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    if gpt2:
        writer.add_layer_norm_eps(1e-5)
    else:
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_rope_freq_base(config["rope_theta"])
        writer.add_rope_dimension_count(config.get("head_dim", width // heads))
    rng = np.random.default_rng(SEED)
    for name, dimensions in tensors(
        config, layers, width, inner, width * kv_heads // heads, context
    ):
        if len(dimensions) == 2:
            values = 0.02 * rng.standard_normal(dimensions, np.float32)
        elif name.endswith("bias"):
            values = np.zeros(dimensions, np.float32)
        else:
            values = np.ones(dimensions, np.float32)
        writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensors(
    config: Mapping[str, Any], layers: int, width: int, inner: int, kv: int, context: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of GPT-2's, Llama's and Qwen2's tensors. The head is the embedding."""
    gpt2, biased = config["model_type"] == "gpt2", config["model_type"] == "qwen2"
    yield "token_embd.weight", (config["vocab_size"], width)
    yield "output_norm.weight", (width,)
    if gpt2:
        yield "position_embd.weight", (context, width)
        yield "output_norm.bias", (width,)
    for i in range(layers):
        at = f"blk.{i}"
        for norm in ("attn_norm", "ffn_norm"):
            yield f"{at}.{norm}.weight", (width,)
            if gpt2:
                yield f"{at}.{norm}.bias", (width,)
        yield f"{at}.attn_output.weight", (width, width)
        yield f"{at}.ffn_up.weight", (inner, width)
        yield f"{at}.ffn_down.weight", (width, inner)
        if gpt2:
            yield f"{at}.attn_qkv.weight", (3 * width, width)
            for name, rows in (
                ("attn_qkv", 3 * width),
                ("attn_output", width),
                ("ffn_up", inner),
                ("ffn_down", width),
            ):
                yield f"{at}.{name}.bias", (rows,)
        else:
            yield f"{at}.ffn_gate.weight", (inner, width)
            for name, rows in (("attn_q", width), ("attn_k", kv), ("attn_v", kv)):
                yield f"{at}.{name}.weight", (rows, width)
                if biased:
                    yield f"{at}.{name}.bias", (rows,)


def quiet(llama_cpp: Any) -> None:
    """Discard the hundreds of lines that llama.cpp logs."""
    global silence  # C keeps a pointer to it
    silence = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silence, None)


def convert(source: Path, dtype: str, threads: int, path: Path) -> None:
    """Convert with llama.cpp's own quantizer. Raises MinigenError if it fails."""
    import llama_cpp

    quiet(llama_cpp)
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.nthread, settings.pure = threads, True
    settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_{TYPES[dtype]}")
    if llama_cpp.llama_model_quantize(str(source).encode(), str(path).encode(), settings):
        raise MinigenError(
            f"llama.cpp cannot convert {source} to {dtype}: remove the file to create it again"
        )
