"""The tensors of a GGUF file under the hub's names, quantized matrices as MLX stores them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.backends.base import Array, Backend
from minigen.checkpoints.gguf.header import Header, StoredTensor
from minigen.families.gguf import GGUFNames
from minigen.models.tensor_info import TensorInfo

Numbers = npt.NDArray[Any]
ROTATED = re.compile(r"blk\.\d+\.attn_(q|k)\.(weight|bias)")


@dataclass(frozen=True)
class Source:
    """One tensor of the file: its names here, and what is done to it."""

    tensor: StoredTensor
    names: tuple[str, ...]  # one for floats; for codes those of the codes, the scales and the biases
    heads: int | None  # whose rows are in the order that rotates neighbors; None: in the hub's
    axis: int | None  # a new one, of length 1

    @property
    def shape(self) -> tuple[int, ...]:
        shape = self.tensor.shape
        return shape if self.axis is None else (*shape[: self.axis], 1, *shape[self.axis :])

    @property
    def quantized(self) -> bool:
        """Only matrices are."""
        return len(self.names) > 1

    def infos(self, path: Path) -> dict[str, TensorInfo]:
        """What a safetensors file would say of it."""
        start, packing = self.tensor.start, self.tensor.type.packing
        if packing is None or not self.quantized:
            dtype = self.tensor.type.dtype if packing is None else "F32"
            return {self.names[0]: TensorInfo(self.names[0], dtype, self.shape, path, start)}
        integers = packing.integers(self.names[0])
        shapes = packing.tensors(self.names[0], (self.shape[0], self.shape[1]))
        return {name: TensorInfo(name, integers.get(name, "F32"), shape, path, start) for name, shape in shapes.items()}


def sources(header: Header, names: GGUFNames, config: Mapping[str, Any]) -> list[Source]:
    """Every tensor of the file. One that the family's table does not name keeps its own name: whoever checks the names
    then finds it."""
    heads = {"q": config.get("num_attention_heads"), "k": config.get("num_key_value_heads")}
    every = []
    for name, tensor in header.tensors.items():
        stored = names.stored_name(name) or name
        rotated = ROTATED.fullmatch(name) if names.interleaved else None
        axis, packing = names.axis(name), tensor.type.packing
        parts: tuple[str, ...] = (stored,)
        if packing is not None and len(tensor.shape) == 2 and axis is None:
            parts = packing.names(stored)
        every.append(Source(tensor, parts, heads[rotated[1]] if rotated else None, axis))
    return every


class GGUFTensors(Mapping[str, Array]):
    """The arrays of a GGUF file by name, read from the mapped file when looked up, in the dtypes of their infos."""

    def __init__(self, ops: Backend, path: Path, every: list[Source]) -> None:
        self.ops = ops
        self.data = np.memmap(path, np.uint8, "r")
        self.sources = {name: source for source in every for name in source.names}
        self.latest: tuple[Source, dict[str, Numbers]] | None = None  # codes, scales and biases come together

    def __getitem__(self, name: str) -> Array:
        source = self.sources[name]
        if self.latest is None or self.latest[0] is not source:
            self.latest = source, read(source, self.data)
        values = self.latest[1].pop(name, None)
        if values is None:  # it was handed over before
            values = read(source, self.data)[name]
        return self.ops.from_numpy(values)

    def __iter__(self) -> Iterator[str]:
        return iter(self.sources)

    def __len__(self) -> int:
        return len(self.sources)


def read(source: Source, data: npt.NDArray[np.uint8]) -> dict[str, Numbers]:
    """The numbers of one tensor, by the names of their arrays."""
    tensor = source.tensor
    raw = data[tensor.start : tensor.start + tensor.bytes]
    packing, decode = tensor.type.packing, tensor.type.decode
    if packing is None or decode is None or not source.quantized:
        values = as_floats(tensor, raw).reshape(tensor.shape)
        return {source.names[0]: in_order(values, source.heads).reshape(source.shape)}
    rows = tensor.shape[0]
    codes, *rest = decode(raw)
    words = packed_words(codes.reshape(rows, -1), packing.bits)
    arrays = [words, *(x.reshape(rows, -1) for x in rest if x is not None)]
    return {name: in_order(x, source.heads) for name, x in zip(source.names, arrays, strict=True)}


def packed_words(codes: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint32]:
    """Codes (rows, columns) one after the other, the first in the lowest bits of a word (rows, columns * bits / 32)."""
    rows = codes.shape[0]
    if bits == 8:
        return np.ascontiguousarray(codes).view("<u4")
    if bits == 4:
        return np.ascontiguousarray(codes[:, ::2] | codes[:, 1::2] << 4).view("<u4")
    eights = codes.reshape(rows, -1, 8).astype("<u8") << np.arange(0, 8 * bits, bits, dtype=np.uint64)
    joined = np.bitwise_or.reduce(eights, axis=-1, keepdims=True)  # each 8 * bits long
    return np.ascontiguousarray(joined.view(np.uint8)[..., :bits]).reshape(rows, -1).view("<u4")


def as_floats(tensor: StoredTensor, raw: npt.NDArray[np.uint8]) -> Numbers:
    """All elements of a tensor, in float32 or as they are stored in float16."""
    kind = tensor.type
    if kind.name in ("F32", "F16"):
        return raw.view("<f4" if kind.name == "F32" else "<f2")
    if kind.name == "F64":
        return raw.view("<f8").astype(np.float32)
    if kind.name == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    if kind.decode is not None and kind.packing is not None and kind.packing.mode == "affine":
        codes, scales, biases = kind.decode(raw)
        groups = codes.reshape(*scales.shape, kind.packing.group)
        assert biases is not None
        return scales[..., None] * groups + biases[..., None]
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    values: Numbers = dequantize(raw, GGMLQuantizationType[kind.name])
    return values


def in_order(x: Numbers, heads: int | None) -> Numbers:
    """Rows of queries and keys in the hub's order: llama.cpp's files have the two halves of a head in turns."""
    if heads is None:
        return x
    return np.ascontiguousarray(x.reshape(heads, -1, 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape))
