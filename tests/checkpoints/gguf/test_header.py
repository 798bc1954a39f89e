"""Headers of GGUF files: what is read, and what is refused, by name."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigen.checkpoints.gguf.header import read_header
from minigen.errors import CheckpointError

gguf = pytest.importorskip("gguf", reason="gguf is not installed")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 3)
    writer.add_float32("llama.rope.freq_base", 5e5)
    writer.add_array("tokenizer.ggml.tokens", ["a", "é", "", "<|x|>"])
    writer.add_array("tokenizer.ggml.scores", [0.5, -1.0, 0.0, 2.0])
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    writer.add_tensor("a.weight", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.add_tensor("b.weight", np.ones((2, 32), np.float16))
    quantized = gguf.quantize(np.ones((5, 64), np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("c.weight", quantized, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_what_is_read(file: Path) -> None:
    header = read_header(file)
    assert header.metadata == {
        "general.architecture": "llama",
        "llama.block_count": 3,
        "llama.rope.freq_base": 5e5,
        "tokenizer.ggml.tokens": ["a", "é", "", "<|x|>"],
        "tokenizer.ggml.scores": [0.5, -1.0, 0.0, 2.0],
        "tokenizer.ggml.add_bos_token": True,
    }
    described = {name: (tensor.type.name, tensor.shape) for name, tensor in header.tensors.items()}
    assert described == {"a.weight": ("F32", (3, 4)), "b.weight": ("F16", (2, 32)), "c.weight": ("Q8_0", (5, 64))}
    start = header.tensors["a.weight"].start
    assert np.array_equal(np.frombuffer(file.read_bytes(), "<f4", 12, start), np.arange(12))


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        read_header(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(f"{path} ").removeprefix(f"{path}: ")


def test_other_files(file: Path) -> None:
    whole = file.read_bytes()
    assert refused(file, b"PK\x03\x04" + whole[4:]) == "is not a GGUF file: it does not begin with GGUF"
    assert refused(file, b"") == "is not a GGUF file: it does not begin with GGUF"
    assert refused(file, b"version https://git-lfs.github.com/spec/v1\n").startswith("is a Git LFS pointer")
    assert refused(file, b"GGUF" + struct.pack(">I", 3) + whole[8:]).startswith("is a big-endian GGUF file")
    assert refused(file, b"GGUF" + struct.pack("<I", 1) + whole[8:]) == "is of GGUF version 1: minigen reads 2, 3"


def test_damage(file: Path) -> None:
    """Wherever it is cut, and whatever a count claims, there is one line and no wait."""
    whole = file.read_bytes()
    for end in [9, 30, 60, 100, 200, 300, len(whole) - 200]:
        assert "damaged" in refused(file, whole[:end])
    for place in (8, 16, 24):  # tensors, keys, the length of the first key
        claimed = whole[:place] + struct.pack("<Q", 2**62) + whole[place + 8 :]
        assert "damaged" in refused(file, claimed)


def test_any_changed_byte_is_read_or_refused(file: Path) -> None:
    whole = bytearray(file.read_bytes())
    header_end = len(whole) - 700
    rng = np.random.default_rng(0)
    for place in rng.integers(4, header_end, 150):
        changed = bytearray(whole)
        changed[place] ^= int(rng.integers(1, 256))
        file.write_bytes(changed)
        try:
            read_header(file)
        except CheckpointError as error:
            assert "\n" not in str(error)


def write(path: Path, **tensors: Any) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    for name, x in tensors.items():
        writer.add_tensor(name, x)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_an_unknown_block_type(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    write(path, only=np.zeros((2, 32), np.float32))
    whole = path.read_bytes()
    place = whole.index(b"only") + 4 + 4 + 16
    message = refused(path, whole[:place] + struct.pack("<I", 77) + whole[place + 4 :])
    assert message.startswith("'only' is of the unknown block type 77: minigen reads F32, F16, BF16, F64, Q4_0")
