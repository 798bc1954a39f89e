"""States on disk: what is loaded goes on as if it had never been saved, and what does not fit is named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigen
from minigen.checkpoints.state_file import load_state, save_state
from minigen.errors import CheckpointError, MinigenError
from minigen.files import replacing
from minigen.model import Model

PROMPTS = [[5, 6, 7, 8, 9, 10], [11, 12]]


@pytest.fixture(params=["llama", "lstm", "lfm2"])
def model(
    request: pytest.FixtureRequest, tiny: Callable[[str], Path], backend: str, device: str
) -> Model:
    return minigen.load(tiny(request.param), backend=backend, device=device, dtype="float32")


def test_goes_on_as_if_never_saved(model: Model, tmp_path: Path) -> None:
    ops, path = model.runner.ops, tmp_path / "prompt.state"
    _, state = model.runner.prefill(PROMPTS, 10)
    save_state(ops, state, path, {"made by": "a test"})
    loaded, metadata = load_state(ops, model.architecture, path)
    assert metadata == {"made by": "a test"}
    assert (loaded.length, loaded.batch) == (state.length, state.batch)
    loaded.reserve(ops, 10)
    for token in (20, 21, 22):
        wanted = ops.numpy(model.runner.decode([token, token], state))
        assert np.abs(ops.numpy(model.runner.decode([token, token], loaded)) - wanted).max() < 1e-6


def test_a_state_of_the_other_backend_is_the_same(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("mlx.core")
    first, second = (
        minigen.load(tiny("llama"), backend=name, device="cpu") for name in ("torch", "mlx")
    )
    _, state = first.runner.prefill(PROMPTS, 8)
    save_state(first.runner.ops, state, tmp_path / "s")
    loaded, _ = load_state(second.runner.ops, second.architecture, tmp_path / "s")
    loaded.reserve(second.runner.ops, 8)
    a = first.runner.ops.numpy(first.runner.decode([3, 4], state))
    b = second.runner.ops.numpy(second.runner.decode([3, 4], loaded))
    assert np.abs(a - b).max() < 1e-4


def test_what_does_not_fit_is_named(
    model: Model, tiny: Callable[[str], Path], tmp_path: Path, backend: str, device: str
) -> None:
    ops, path = model.runner.ops, tmp_path / "s"
    _, state = model.runner.prefill(PROMPTS, 8)
    save_state(ops, state, path)
    half = minigen.load(model.folder, backend=backend, device=device, dtype="float16")
    with pytest.raises(
        CheckpointError, match=r"saved in float32 and the model runs in float16: load it with that"
    ):
        load_state(half.runner.ops, half.config, path)
    other = minigen.load(tiny("gpt2"), backend=backend, device=device, dtype="float32")
    with pytest.raises(
        CheckpointError,
        match=r"recurrent model; this model's state is kv|another model: 0\.k is \(2, 2, 6, 8\)",
    ):
        load_state(ops, other.architecture, path)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a saved state"):
        load_state(ops, model.architecture, model.folder / "model.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=r"truncated"):
        load_state(ops, model.architecture, path)


@pytest.mark.parametrize("length", [0, 6])
def test_a_file_that_claims_many_rows(model: Model, tmp_path: Path, length: int) -> None:
    """Nothing is made for rows that are not in the file: these would take terabytes."""
    ops, path, rows = model.runner.ops, tmp_path / "s", 2**30
    _, state = model.runner.prefill([PROMPTS[0]], 8)
    arrays = {name: ops.numpy(x) for name, x in state.arrays().items()}
    about = {
        "kind": state.kind,
        "length": length,
        "batch": rows,
        "dtype": ops.dtype,
        "starts": None,
    }
    for empty in (False, True):
        header, end = dict[str, Any](), 0
        for name, x in arrays.items():
            shape = (rows, *x.shape[1:-1], 0) if empty else x.shape
            size = 0 if empty else x.nbytes
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
            end += size
        text = json.dumps({**header, "__metadata__": {"minigen_state": json.dumps(about)}}).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))
        with pytest.raises(
            CheckpointError, match=r"is not a saved state|is the state of another model"
        ):
            load_state(ops, model.architecture, path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(error: Exception) -> None:
        with replacing(path) as beside:
            beside.write_text("half")
            raise error

    with pytest.raises(MinigenError, match=rf"cannot write {path}: No space left"):
        fail(OSError(28, os.strerror(28)))
    with pytest.raises(RuntimeError):
        fail(RuntimeError())
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]
    with replacing(path) as beside:
        beside.write_text("new")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]
