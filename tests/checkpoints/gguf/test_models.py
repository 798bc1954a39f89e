"""Models from GGUF files against the same weights from safetensors."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minigen
from minigen.errors import CheckpointError

gguf = pytest.importorskip("gguf", reason="gguf is not installed")
IDS = np.arange(24).reshape(2, 12) * 7 % 250
QUANTS = {"Q4_0": "q4", "Q4_1": "q4", "Q5_0": "q5", "Q5_1": "q5", "Q8_0": "q8", "F16": "", "BF16": ""}
CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {}),
    "llama": ("llama", {}),
    "llama, untied": ("llama", {"tie_word_embeddings": False, "num_key_value_heads": 1}),
    "llama, wide heads": ("llama", {"head_dim": 16}),
    "llama, biases": ("llama", {"attention_bias": True}),
    "qwen2": ("llama", {"model_type": "qwen2"}),
    "qwen3": ("llama", {"model_type": "qwen3", "head_dim": 16}),
    "lfm2": ("lfm2", {}),
}


def metadata_of(folder: Path) -> dict[str, Any]:
    """What a table does not say."""
    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] != "lfm2":
        return {}
    counts = [2 if kind == "full_attention" else 0 for kind in config["layer_types"]]
    return {"attention.head_count_kv": counts, "shortconv.l_cache": 3}


@pytest.mark.parametrize("name", CHANGES)
def test_floats(make_model: Callable[..., Path], write_gguf: Any, backend: str, device: str, name: str) -> None:
    kind, changes = CHANGES[name]
    folder = make_model(kind, **changes)
    path = write_gguf(folder, **metadata_of(folder))
    model = minigen.load(path, backend, device, "float32")
    want = minigen.load(folder, backend, device, "float32")
    assert np.array_equal(model.logits(IDS), want.logits(IDS))
    assert model.config == want.config


@pytest.mark.parametrize("kind", QUANTS)
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_kept_quantized(
    make_model: Callable[..., Path], write_gguf: Any, tmp_path: Path, backend: str, device: str, name: str, kind: str
) -> None:
    """The same numbers as the gguf library makes of the blocks, and matrices that stay in few bits."""
    folder = make_model(name, intermediate_size=64)
    path = write_gguf(folder, kind)

    def rounded(x: Any) -> Any:
        quantization = gguf.GGMLQuantizationType[kind]
        return gguf.dequantize(gguf.quantize(np.ascontiguousarray(x), quantization), quantization)

    tensors = load_file(folder / "model.safetensors")
    for tensor, x in tensors.items():
        if x.ndim == 2 and "wpe" not in tensor:
            transposed = name == "gpt2" and "wte" not in tensor
            tensors[tensor] = np.ascontiguousarray(rounded(x.T).T if transposed else rounded(x))
    save_file(tensors, folder / "model.safetensors")
    model = minigen.load(path, backend, device, "float32")
    want = minigen.load(folder, backend, device, "float32").logits(IDS)
    assert np.abs(model.logits(IDS) - want).max() <= 1e-5 * max(1, np.abs(want).max())
    assert model.quant == QUANTS[kind]


def test_random_blocks_of_every_type(
    make_model: Callable[..., Path], write_gguf: Any, backend: str, device: str, own_cache: Path
) -> None:
    """Those that the library cannot make: a matrix of such blocks, and what becomes of it."""
    from minigen.backends import get_backend
    from minigen.backends.quantized import Quantized
    from minigen.checkpoints.gguf.header import StoredTensor
    from minigen.checkpoints.gguf.tensors import GGUFTensors, Source
    from minigen.checkpoints.gguf.types import TYPES
    from minigen.checkpoints.loading import recoded

    ops = get_backend(backend, device, "float32")
    rng = np.random.default_rng(5)
    for number, kind in TYPES.items():
        if kind.elements == 1:
            continue
        columns = 512
        blocks = rng.integers(0, 256, (6, columns // kind.elements, kind.block_bytes)).astype(np.uint8)
        if kind.name == "MXFP4":
            blocks[..., 0] = np.clip(blocks[..., 0], 100, 150)  # powers of two that are no infinities
        path = own_cache.parent / f"{kind.name}.bin"
        path.write_bytes(blocks.tobytes())
        tensor = StoredTensor("x", (6, columns), kind, 0)
        names = ("x",) if kind.packing is None else kind.packing.names("x")
        source = Source(tensor, names, None, None)
        arrays = GGUFTensors(ops, path, [source])
        with np.errstate(all="ignore"):
            want = gguf.dequantize(blocks.reshape(6, -1), gguf.GGMLQuantizationType(number))
            if kind.packing is None:
                got = ops.numpy(arrays["x"])
            else:
                held = kind.packing.held_on(backend)
                x = recoded(ops, [arrays[name] for name in names], kind.packing, held)
                got = ops.numpy(ops.dequantize(x) if isinstance(x, Quantized) else x)
        finite = np.isfinite(want)
        error = np.abs(got[finite] - want[finite]).max()
        assert error <= 1e-6 * np.abs(want[finite]).max(), kind.name


def test_what_is_refused(make_model: Callable[..., Path], write_gguf: Any) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(CheckpointError) as error:
            minigen.load(path, device="cpu")
        return str(error.value).removeprefix(f"{path} ").removeprefix(f"{path}: ")

    folder = make_model("llama")
    known = "gpt2, lfm2, llama, qwen2, qwen3"
    path = write_gguf(folder, **{"general.architecture": "mamba"})
    assert refused(path) == f"has the architecture 'mamba': minigen reads GGUF files of {known}"
    assert "models with experts are not supported" in refused(write_gguf(folder, expert_count=8))


def test_a_tensor_too_many_is_named(make_model: Callable[..., Path], write_gguf: Any) -> None:
    """A bias that this family has not, and a tensor of no family."""
    folder = make_model("llama", model_type="qwen3", head_dim=16)
    add_tensors(folder, **{"model.layers.0.self_attn.q_proj.bias": np.ones(64, np.float32)})
    with pytest.raises(CheckpointError, match=r"1 unexpected: model\.layers\.0\.self_attn\.q_proj\.bias \(64,\)"):
        minigen.load(write_gguf(folder), device="cpu")


def add_tensors(folder: Path, **tensors: Any) -> None:
    path = folder / "model.safetensors"
    save_file({**load_file(path), **tensors}, path)


def test_the_folder_is_made_once(make_model: Callable[..., Path], write_gguf: Any, own_cache: Path) -> None:
    path = write_gguf(make_model("llama"))
    first = minigen.load(path, device="cpu")
    (folder,) = (own_cache / "minigen" / "gguf").iterdir()
    assert first.folder == folder
    before = (folder / "config.json").stat().st_mtime_ns
    minigen.load(path, device="cpu")
    assert (folder / "config.json").stat().st_mtime_ns == before
    path.write_bytes(path.read_bytes() + bytes(32))
    minigen.load(path, device="cpu")
    assert len(list((own_cache / "minigen" / "gguf").iterdir())) == 2


def test_without_a_cache(
    make_model: Callable[..., Path], write_gguf: Any, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_gguf(make_model("llama"))
    own_cache.write_text("not a folder")
    with caplog.at_level(logging.WARNING):
        assert minigen.load(path, device="cpu").logits(IDS).shape == (2, 12, 256)
    assert caplog.messages == []
