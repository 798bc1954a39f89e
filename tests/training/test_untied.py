"""Training goes on from a model whose head is not the embedding that config.json says it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigen
from minigen.training.run import begin, make_config

IDS = [[1, 5, 9, 33, 2]]


@pytest.mark.parametrize("rank", [0, 2])
def test_the_head_is_kept(
    make_model: Callable[..., Path],
    text: Path,
    tmp_path: Path,
    backend: str,
    device: str,
    train: Any,
    rank: int,
) -> None:
    source, run = make_model("llama", tie_word_embeddings=False), tmp_path / "run"
    right = minigen.load(source, backend, device).logits(IDS)
    config = json.loads((source / "config.json").read_text()) | {"tie_word_embeddings": True}
    (source / "config.json").write_text(json.dumps(config))
    settings: dict[str, Any] = {
        "from": str(source), "data": [str(text)], "backend": backend, "device": device, "steps": 1, "eval_every": 1,
        "batch": 2, "context": 8, "lr": 1e-9, "warmup": 0, "save_every": 1, "valid": 0.1, "log_every": 1,
    }  # fmt: skip
    train(begin(make_config(settings | ({"lora_rank": rank} if rank else {})), run))
    trained = minigen.load(run, backend, device)
    assert np.abs(trained.logits(IDS) - right).max() < 1e-3
    assert "weight" in trained.runner.params["head"]
    if not rank:
        assert json.loads((run / "config.json").read_text())["tie_word_embeddings"] is False
