"""Tiny random models of every family against the transformers library: logits, greedy tokens, ragged batches."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigen
from minigen.families import FAMILIES, HubConfig, find_family

pytest.importorskip("torch")
pytest.importorskip("transformers")

LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 2.0,
          "original_max_position_embeddings": 16}  # fmt: skip
GPT2 = {"n_embd": 12, "n_layer": 2, "n_head": 3, "n_positions": 48}
LLAMA = {"hidden_size": 20, "intermediate_size": 26, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 6, "max_position_embeddings": 48}  # fmt: skip
QWEN2 = {key: value for key, value in LLAMA.items() if key != "head_dim"} | {"hidden_size": 24}
LFM2 = {**{key: value for key, value in LLAMA.items() if key != "head_dim"}, "hidden_size": 24, "num_hidden_layers": 3,
        "block_auto_adjust_ff_dim": False, "layer_types": ["conv", "full_attention", "conv"]}  # fmt: skip
SLIDING = {"use_sliding_window": True, "sliding_window": 4}
NEW = 20
PROMPTS = (2, 13, 7)  # their lengths; with the new tokens they exceed every window below

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", GPT2),
    "gpt2-one-layer-odd": ("gpt2", {**GPT2, "n_layer": 1, "n_embd": 35, "n_head": 5, "n_inner": 13}),
    "gpt2-one-head": ("gpt2", {**GPT2, "n_embd": 11, "n_head": 1, "activation_function": "relu"}),
    "gpt2-unscaled": ("gpt2", {**GPT2, "scale_attn_weights": False, "activation_function": "gelu"}),
    "gpt2-scaled-by-layer": ("gpt2", {**GPT2, "n_layer": 3, "scale_attn_by_inverse_layer_idx": True}),
    "gpt2-only-by-layer": ("gpt2", {**GPT2, "scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": True}),
    "gpt2-eps": ("gpt2", {**GPT2, "layer_norm_epsilon": 0.3, "reorder_and_upcast_attn": True}),
    "gpt2-untied": ("gpt2", {**GPT2, "tie_word_embeddings": False, "activation_function": "silu"}),
    "llama": ("llama", LLAMA),
    "llama-width-by-heads": ("llama", {**LLAMA, "head_dim": None, "hidden_size": 24, "rms_norm_eps": 0.2}),
    "llama-one-kv-head": ("llama", {**LLAMA, "num_key_value_heads": 1, "hidden_act": "gelu"}),
    "llama-all-kv-heads": ("llama", {**LLAMA, "num_key_value_heads": 4, "hidden_act": "relu"}),
    "llama-biases": ("llama", {**LLAMA, "attention_bias": True, "mlp_bias": True, "hidden_size": 44}),
    "llama-attention-bias": ("llama", {**LLAMA, "attention_bias": True, "tie_word_embeddings": True}),
    "llama-mlp-bias": ("llama", {**LLAMA, "mlp_bias": True, "hidden_act": "gelu_pytorch_tanh"}),
    "llama-one-layer": ("llama", {**LLAMA, "num_hidden_layers": 1, "hidden_act": "gelu_new"}),
    "llama-theta": ("llama", {**LLAMA, "rope_theta": 70.0}),
    "llama-linear": ("llama", {**LLAMA, "rope_theta": 50.0, "rope_scaling": {"rope_type": "linear", "factor": 3.0}}),
    "llama-llama3": ("llama", {**LLAMA, "head_dim": 16, "rope_theta": 100.0, "rope_scaling": LLAMA3}),
    "lfm2": ("lfm2", LFM2),
    "lfm2-bias": ("lfm2", {**LFM2, "conv_L_cache": 5, "conv_bias": True}),
    "lfm2-last": ("lfm2", {**LFM2, "layer_types": ["conv", "conv", "full_attention"], "num_key_value_heads": 4}),
    "lfm2-attention": ("lfm2", {**LFM2, "layer_types": ["full_attention"] * 3, "num_key_value_heads": 1}),
    "lfm2-adjusted": ("lfm2", {**LFM2, "block_auto_adjust_ff_dim": True, "block_multiple_of": 10, "conv_L_cache": 2}),
    "mistral": ("mistral", {**LLAMA, "sliding_window": 5}),
    "mistral-full": ("mistral", {**LLAMA, "sliding_window": None, "tie_word_embeddings": True}),
    "mistral-one-kv-head": ("mistral", {**LLAMA, "sliding_window": 2, "num_key_value_heads": 1, "hidden_size": 23}),
    "mistral-wide": ("mistral", {**LLAMA, "sliding_window": 16, "head_dim": None, "hidden_size": 24}),
    "qwen2": ("qwen2", {**QWEN2, "tie_word_embeddings": True}),
    "qwen2-head-width": ("qwen2", {**QWEN2, "head_dim": 8, "hidden_size": 23, "num_key_value_heads": 4}),
    "qwen2-window": ("qwen2", {**QWEN2, **SLIDING, "num_hidden_layers": 3, "max_window_layers": 1}),
    "qwen2-all-windows": ("qwen2", {**QWEN2, **SLIDING, "max_window_layers": 0, "num_key_value_heads": 1}),
    "qwen2-layer-types": ("qwen2", {**QWEN2, **SLIDING, "layer_types": ["sliding_attention", "full_attention"]}),
    "qwen2-window-unused": ("qwen2", {**QWEN2, "sliding_window": 4, "max_window_layers": 0}),
    "qwen3": ("qwen3", LLAMA),
    "qwen3-bias": ("qwen3", {**LLAMA, "attention_bias": True, "head_dim": 10, "tie_word_embeddings": True}),
    "qwen3-one-kv-head": ("qwen3", {**LLAMA, "num_key_value_heads": 1, "hidden_size": 19, "rms_norm_eps": 0.1}),
    "qwen3-window": ("qwen3", {**LLAMA, **SLIDING, "num_hidden_layers": 3, "max_window_layers": 2}),
}  # fmt: skip


@dataclass(frozen=True)
class Expected:
    """A checkpoint, and what transformers makes of it."""

    folder: Path
    ids: np.ndarray[Any, Any]  # (B, T)
    logits: np.ndarray[Any, Any]  # (B, T, V)
    prompts: list[list[int]]
    greedy: list[list[int]]


def make(name: str, folder: Path) -> Expected:
    """Saves a random model in which every parameter counts, and runs it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, values = CASES[name]
    config = AutoConfig.for_model(
        kind,
        vocab_size=37,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        use_cache=True,
        **values,
    )
    model = AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", dtype=torch.float32
    ).eval()
    rng = np.random.default_rng(list(name.encode()))
    prompts: list[list[int]] = []
    greedy: list[list[int]] = []
    with torch.no_grad():
        for path, p in model.named_parameters():
            scale = path.endswith("weight") and ("norm" in path or "ln_" in path)
            p.copy_(torch.tensor(scale + 0.35 * rng.standard_normal(p.shape)))
        model.save_pretrained(folder)
        ids = rng.integers(0, 37, (2, 31))
        logits = model(torch.tensor(ids)).logits.numpy()
        while len(prompts) < len(PROMPTS):
            prompt = torch.tensor(rng.integers(0, 37, (1, PROMPTS[len(prompts)])))
            out = model.generate(
                prompt, attention_mask=torch.ones_like(prompt), do_sample=False, min_new_tokens=NEW, max_new_tokens=NEW,
                pad_token_id=0, output_logits=True, return_dict_in_generate=True,
            )  # fmt: skip
            best = torch.stack(out.logits)[:, 0].topk(2).values
            if (
                best[:, 0] - best[:, 1]
            ).min() > 1e-3:  # else rounding may choose another token: take another prompt
                prompts.append(prompt[0].tolist())
                greedy.append(out.sequences[0, prompt.shape[1] :].tolist())
    assert logits.std() > 0.5, "too flat to show an error"
    return Expected(folder, ids, logits, prompts, greedy)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Expected]:
    """expected("gpt2"): made when first asked for and kept for the other backend."""
    made: dict[str, Expected] = {}

    def get(name: str) -> Expected:
        if name not in made:
            made[name] = make(name, tmp_path_factory.mktemp("hf") / name)
        return made[name]

    return get


@pytest.mark.parametrize("name", CASES)
def test_logits_and_greedy_tokens(
    expected: Callable[[str], Expected], backend: str, device: str, name: str
) -> None:
    facts = expected(name)
    model = minigen.load(facts.folder, backend=backend, device=device, dtype="float32")
    logits = model.logits(facts.ids)
    assert logits.dtype == np.float32
    assert np.abs(logits - facts.logits).max() <= 2e-4
    greedy: dict[str, Any] = {"max_tokens": NEW, "temperature": 0, "ignore_eos": True}
    assert [model.generate_ids([prompt], **greedy)[0] for prompt in facts.prompts] == facts.greedy
    assert model.generate_ids(facts.prompts, **greedy) == facts.greedy


@pytest.mark.parametrize("name", CASES)
def test_older_config(expected: Callable[[str], Expected], name: str) -> None:
    """As transformers 4 wrote it, with rope_theta, rope_scaling and no layer_types: the same model."""
    values = json.loads((expected(name).folder / "config.json").read_text())
    older = {
        key: value for key, value in values.items() if key not in ("rope_parameters", "layer_types")
    }
    build = find_family(values).build
    assert build(HubConfig({**older, **CASES[name][1]})) == build(HubConfig(values))


def test_every_family_is_compared() -> None:
    recurrent = {"lstm_lm", "gru_lm", "rnn_lm"}
    assert {kind for kind, _ in CASES.values()} == set(FAMILIES) - recurrent
