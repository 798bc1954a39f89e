"""The settings of `minigen.train` by their names and types, for editors and type checkers.

Written out, because a type checker runs nothing; tests/training/test_library.py holds it equal to the table
in config.py, which the flags and train.toml come from. Python has no argument called `from`: it is `from_model`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict


class TrainSettings(TypedDict, total=False):
    model: Literal["gpt", "llama", "lstm", "gru", "rnn"]
    layers: int
    heads: int
    kv_heads: int
    width: int
    hidden: int
    context: int
    vocab: int
    tied: bool
    dropout: float
    from_model: str
    lora_rank: int
    lora_alpha: float
    lora_target: Literal["all", "attention"]
    tokenizer: str
    chat: Literal["", "phi3", "chatml"]
    chat_date: str
    separator: str
    valid: float
    valid_data: Sequence[str]
    mode: Literal["auto", "windows", "documents"]
    teacher: str
    teacher_weight: float
    teacher_temperature: float
    teacher_tokens: int
    optimizer: Literal["adamw", "muon"]
    betas: Sequence[float]
    eps: float
    weight_decay: float
    clip: float
    ema: float
    steps: int
    batch: int
    accumulate: int
    lr: float
    warmup: int
    schedule: Literal["cosine", "wsd"]
    final: float
    decay: float
    seed: int
    eval_every: int
    save_every: int
    keep: int
    log_every: int
    sample_tokens: int
    prompt: str
    backend: Literal["auto", "torch", "mlx"]
    device: str
    threads: int
    processes: int
    dtype: Literal["float32", "bfloat16"]
    compile: bool
    deterministic: bool
    save_dtype: Literal["float32", "bfloat16"]
    tensorboard: bool
    wandb: str
