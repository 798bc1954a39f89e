"""GGUF files of tiny models, written by the gguf library from checkpoints of the hub's form."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from minigen.families import find_family

Write = Callable[..., Path]


def rotated_in_turns(x: Any, heads: int) -> Any:
    """Rows as llama.cpp's files have those of queries and keys: the first of each half, then the second of each."""
    return x.reshape(heads, 2, -1, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def gguf_names(family: Any, name: str) -> str:
    """The name in the file of a stored tensor."""
    module, _, part = name.removeprefix(family.prefix).rpartition(".")
    for ours, theirs in family.gguf.tensors.items():
        stored = theirs.removeprefix(family.prefix).removeprefix(family.mlx_prefix)
        pattern = re.escape(stored).replace(r"\{layer\}", r"(\d+)")
        match = re.fullmatch(pattern, module)
        if match:
            return f"{ours.format(layer=match[1] if match.groups() else '')}.{part}"
    raise AssertionError(name)


@pytest.fixture
def write_gguf(tmp_path: Path) -> Write:
    """write_gguf(folder, kind="Q8_0", **metadata): the model of a folder as a GGUF file, matrices quantized."""
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")

    def write(folder: Path, kind: str | None = None, change: Any = None, **metadata: Any) -> Path:
        config = json.loads((folder / "config.json").read_text())
        family = find_family(config)
        assert family.gguf is not None
        path = tmp_path / f"{folder.name}-{kind}.gguf"
        writer = gguf.GGUFWriter(path, config["model_type"])
        keys = {ours: config[key] for ours, key in family.gguf.keys.items() if key in config}
        for key, value in {**keys, **metadata}.items():
            name = key if key.startswith(("tokenizer.", "general.")) else f"{config['model_type']}.{key}"
            add(writer, name, value)
        for name, x in load_file(folder / "model.safetensors").items():
            their_name = gguf_names(family, name)
            if re.search(r"(c_attn|c_proj|c_fc)\.weight$", name):
                x = x.T
            if "conv.conv" in name:
                x = x[:, 0]
            rotated = re.search(r"attn_(q|k)\.", their_name)
            if rotated and family.gguf.interleaved:
                heads = {"q": "num_attention_heads", "k": "num_key_value_heads"}[rotated[1]]
                x = rotated_in_turns(x, config[heads])
            x = np.ascontiguousarray(x)
            if change is not None:
                x = change(their_name, x)
            if kind is not None and x.ndim == 2 and "conv" not in their_name and "position" not in their_name:
                quantization = gguf.GGMLQuantizationType[kind]
                writer.add_tensor(their_name, gguf.quantize(x, quantization), raw_dtype=quantization)
            else:
                writer.add_tensor(their_name, x)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def add(writer: Any, name: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, int):
        writer.add_uint32(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    else:
        writer.add_array(name, value)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"
