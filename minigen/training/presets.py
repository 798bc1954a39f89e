"""Named groups of settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minigen.errors import UsageError

# nanoGPT's train_shakespeare_char.py; the presets below have its README's values for CPU and GPU.
NANOGPT: dict[str, Any] = {
    "model": "gpt",
    "tokenizer": "char",
    "mode": "windows",
    "valid": 0.1,
    "lr": 1e-3,
    "warmup": 100,
    "final": 0.1,
    "schedule": "cosine",
    "betas": (0.9, 0.99),
    "weight_decay": 0.1,
    "clip": 1.0,
    "optimizer": "adamw",
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "tiny": {},  # the defaults
    "shakespeare_char": NANOGPT
    | {
        "layers": 4,
        "heads": 4,
        "width": 128,
        "context": 64,
        "batch": 12,
        "steps": 2000,
        "eval_every": 250,
    },
    "shakespeare": {
        "model": "llama",
        "tokenizer": "char",
        "mode": "windows",
        "valid": 0.1,
        "layers": 4,
        "heads": 4,
        "width": 128,
        "context": 128,
        "batch": 12,
        "steps": 600,
        "eval_every": 200,
        "optimizer": "muon",
        "lr": 4e-3,
        "warmup": 50,
        "schedule": "wsd",
        "decay": 0.6,
        "final": 0.05,
        "weight_decay": 0.1,
    },
    "baby": NANOGPT
    | {
        "layers": 6,
        "heads": 6,
        "width": 384,
        "context": 256,
        "batch": 64,
        "dropout": 0.2,
        "steps": 5000,
        "eval_every": 250,
    },
    "stories": {
        "model": "llama",
        "tokenizer": "bpe:2048",
        "layers": 6,
        "heads": 3,
        "width": 192,
        "context": 512,
        "batch": 12,
        "steps": 10000,
        "eval_every": 500,
        "optimizer": "adamw",
        "lr": 2.5e-3,
        "warmup": 100,
        "schedule": "wsd",
        "decay": 0.5,
        "final": 0.05,
        "dropout": 0.1,
        "dtype": "bfloat16",
        "save_dtype": "bfloat16",
        "compile": True,
    },
}


def preset(name: str) -> Mapping[str, Any]:
    """The settings of a preset. Raises UsageError for an unknown one."""
    if name not in PRESETS:
        raise UsageError(f"unknown preset {name!r}: choose {', '.join(PRESETS)}")
    return PRESETS[name]
