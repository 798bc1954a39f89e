"""Weights as files: what was trained is what is opened, here and in transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigen
from minigen.backends import Backend
from minigen.checkpoints.checkpoint import read_headers
from minigen.checkpoints.loading import load_params
from minigen.checkpoints.saving import bfloat16, to_tensors, write_tensors
from minigen.families import HubConfig, find_family
from minigen.families.new import new_config
from minigen.layers.param import initialise
from minigen.training.config import ModelConfig
from minigen.tree import flatten

MODELS = {
    "gpt": {},
    "llama": {"kv_heads": 1},
    "llama untied": {"tied": False},
    "lstm": {"tied": False, "hidden": 24},
    "gru": {},
    "rnn": {},
}


def config_of(name: str) -> dict[str, Any]:
    settings = ModelConfig(
        model=name.split()[0], layers=2, heads=2, width=16, context=12, **MODELS[name]
    )  # type: ignore[arg-type]
    return new_config(settings, 31, {"bos_token_id": None, "eos_token_id": 3}, "float32")


@pytest.mark.parametrize("name", MODELS)
def test_there_and_back(ops: Backend, tmp_path: Path, name: str) -> None:
    hub = config_of(name)
    family = find_family(hub)
    architecture = family.build(HubConfig(hub))
    params = initialise(architecture.shapes(), 5)
    write_tensors(tmp_path / "model.safetensors", to_tensors(architecture, family, params))
    found = flatten(load_params(ops, architecture, family, read_headers(tmp_path), tmp_path))
    wanted = flatten(params)
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(ops.numpy(found[path]), wanted[path]) for path in wanted)


@pytest.mark.parametrize("name", ["gpt", "llama", "llama untied"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_transformers_opens_it(tmp_path: Path, name: str, dtype: str) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    hub = config_of(name) | {"torch_dtype": dtype}
    family = find_family(hub)
    architecture = family.build(HubConfig(hub))
    (tmp_path / "config.json").write_text(json.dumps(hub))
    tensors = to_tensors(architecture, family, initialise(architecture.shapes(), 5))
    write_tensors(tmp_path / "model.safetensors", tensors, dtype)
    other = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = np.arange(10)[None] * 3
    with torch.inference_mode():
        wanted = other(torch.from_numpy(ids)).logits.numpy()
    assert np.abs(minigen.load(tmp_path, "torch", "cpu").logits(ids) - wanted).max() < 1e-4
    assert (other.config.bos_token_id, other.config.eos_token_id) == (None, 3)


def test_bfloat16_rounds_as_torch_does(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal(3000).astype(np.float32)
    x = np.concatenate(
        [x, np.array([0, -0.0, np.inf, -np.inf, 1.00390625, 1.01171875, 3.4e38, 1e-40], np.float32)]
    )
    wanted = torch.from_numpy(x).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(bfloat16(x), wanted)
    assert np.isnan(
        (bfloat16(np.array([np.nan], np.float32)).astype(np.uint32) << 16).view(np.float32)
    ).all()


def test_the_file_is_one_that_the_library_reads(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    arrays: dict[str, Any] = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3).T, "b.c": np.array(7, np.int64),
        "d": np.zeros((0, 4), np.float32), "é": np.array([True, False]), "u": np.arange(3, dtype=np.uint8),
    }  # fmt: skip
    write_tensors(tmp_path / "x.safetensors", arrays)
    found = load_file(tmp_path / "x.safetensors")
    assert {name: (x.dtype, x.shape) for name, x in found.items()} == {
        name: (x.dtype, x.shape) for name, x in arrays.items()
    }
    assert all(np.array_equal(found[name], x) for name, x in arrays.items())


def test_a_shape_that_cannot_be(small: Callable[..., Any]) -> None:
    def refuse(**changes: Any) -> str:
        with pytest.raises(minigen.errors.MinigenError) as caught:
            new_config(small(**changes).model, 9, {}, "float32")
        return str(caught.value)

    assert refuse(width=15) == "width is 15: it must be a multiple of the 2 heads"
    assert (
        refuse(width=10, heads=2)
        == "width 10 over 2 heads is 5: it must be even, for rotary positions"
    )
    assert refuse(heads=4, kv_heads=3) == "kv_heads is 3: it must divide the 4 heads"
    assert refuse(model="gpt", kv_heads=1).startswith(
        "kv_heads is 1: a gpt has one for each of its"
    )
    assert refuse(model="lstm", hidden=24).startswith(
        "hidden is 24 and width is 16: they must be equal"
    )
