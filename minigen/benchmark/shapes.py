"""The true shapes of known models, for benchmarks with random weights: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# name -> what its config.json on the hub says, as far as it concerns the computation
SHAPES: Mapping[str, dict[str, Any]] = {
    "gpt2": {
        "model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024,
        "torch_dtype": "float32",
    },
    "gpt2-xl": {
        "model_type": "gpt2", "vocab_size": 50257, "n_embd": 1600, "n_head": 25, "n_layer": 48, "n_positions": 1024,
        "torch_dtype": "float32",
    },
    "smollm2-135m": {
        "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192,
        "rope_theta": 100000.0, "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    },
    "qwen2.5-0.5b": {
        "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "max_position_embeddings": 32768,
        "rope_theta": 1000000.0, "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    },
    "llama-1b": {  # Llama 3.2 1B
        "model_type": "llama", "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192,
        "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
        "max_position_embeddings": 131072, "rope_theta": 500000.0, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
        "rope_scaling": {
            "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        "torch_dtype": "bfloat16",
    },
    "stories-3m": {
        "model_type": "llama", "vocab_size": 2048, "hidden_size": 192, "intermediate_size": 512,
        "num_hidden_layers": 6, "num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 64,
        "max_position_embeddings": 512, "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
    },
}  # fmt: skip
