"""Every block type of GGUF against the gguf library: the same numbers, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minigen.checkpoints.gguf.tensors import packed_words
from minigen.checkpoints.gguf.types import TYPES, TensorType

gguf = pytest.importorskip("gguf", reason="gguf is not installed")
KINDS = {kind.name: (number, kind) for number, kind in TYPES.items()}
PACKED = [name for name, (_, kind) in KINDS.items() if kind.packing is not None]


def random_blocks(kind: TensorType, count: int) -> Any:
    return np.random.default_rng(3).integers(0, 256, (count, kind.block_bytes)).astype(np.uint8)


@pytest.mark.parametrize("name", KINDS)
def test_sizes(name: str) -> None:
    number, kind = KINDS[name]
    assert gguf.GGMLQuantizationType[name] == number
    assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]] == (kind.elements, kind.block_bytes)


@pytest.mark.parametrize("name", [name for name in PACKED if name != "MXFP4"])
def test_affine_blocks(name: str) -> None:
    """Random bytes: every code and every scale, infinite ones and NaN left out."""
    number, kind = KINDS[name]
    assert kind.decode is not None
    assert kind.packing is not None
    blocks = random_blocks(kind, 300)
    with np.errstate(all="ignore"):
        codes, scales, biases = kind.decode(blocks)
        assert biases is not None
        groups = codes.reshape(*scales.shape, kind.packing.group)
        got = (scales[..., None] * groups + biases[..., None]).reshape(codes.shape)
        want = gguf.dequantize(blocks, gguf.GGMLQuantizationType(number)).reshape(codes.shape)
    assert codes.dtype == np.uint8
    assert codes.max() < 2**kind.packing.bits
    assert scales.dtype == biases.dtype == got.dtype == np.float32
    finite = np.isfinite(want)
    assert finite.mean() > 0.5
    assert np.array_equal(got[finite], want[finite])


def test_float4_blocks() -> None:
    number, kind = KINDS["MXFP4"]
    assert kind.decode is not None
    blocks = random_blocks(kind, 300)
    blocks[:, 0] = np.clip(blocks[:, 0], 100, 150)
    codes, scales, biases = kind.decode(blocks)
    assert biases is None
    values = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    numbers = np.concatenate([values, -values])[codes] * 2.0 ** (scales.astype(float) - 127)
    assert np.array_equal(numbers, gguf.dequantize(blocks, gguf.GGMLQuantizationType(number)))


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_words_of_codes(bits: int) -> None:
    """The first code is in the lowest bits; a code may lie across words."""
    codes = np.random.default_rng(bits).integers(0, 2**bits, (3, 64)).astype(np.uint8)
    words = packed_words(codes, bits)
    assert words.shape == (3, 64 * bits // 32)
    for row, packed in zip(codes, words, strict=True):
        whole = sum(int(word) << 32 * i for i, word in enumerate(packed))
        assert [whole >> bits * i & (2**bits - 1) for i in range(64)] == row.tolist()
