"""From a parameter tree to the tensors of a checkpoint: what loading.py does, undone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.backends.base import DTYPES, Quantized, Tree
from minigen.checkpoints.plan import Entry, plan
from minigen.families.family import Family
from minigen.models.architecture import Architecture
from minigen.models.packing import Packings, module_of, stored_names
from minigen.models.stored_dtypes import STORED, number_bytes
from minigen.tree import flatten

Arrays = Mapping[str, npt.NDArray[Any]]


def stored_plan(architecture: Architecture, family: Family, quantized: bool) -> list[Entry]:
    """What a new checkpoint has: a quantized one the names that mlx-lm knows."""
    return plan(architecture, family, [(quantized and family.mlx_prefix) or family.prefix])


def quantization_config(architecture: Architecture, family: Family, packings: Packings) -> dict[str, Any]:
    """ "quantization" of config.json for a model with these matrices: the commonest packing, and those that differ."""
    kinds = list(packings.values())
    default = max(dict.fromkeys(kinds), key=kinds.count)
    found: dict[str, Any] = default.as_config()
    for entry in stored_plan(architecture, family, quantized=True):
        packing = packings.get(entry.path, default)
        found |= {module_of(piece.name): packing.as_config() for piece in entry.pieces if packing != default}
    return found


def to_tensors(architecture: Architecture, family: Family, params: Tree) -> dict[str, npt.NDArray[Any]]:
    """Weights in NumPy as the tensors of the family's checkpoints, cut apart and transposed as they are there. A
    Quantized of arrays is three tensors, and then nothing is transposed."""
    flat, tensors = flatten(params), dict[str, npt.NDArray[Any]]()
    quantized = any(isinstance(x, Quantized) for x in flat.values())
    for entry in stored_plan(architecture, family, quantized):
        leaf = flat[entry.path]
        if isinstance(leaf, Quantized):
            for i, array in enumerate(leaf.arrays):
                for piece, part in entry.take_apart(array, transposed=False):
                    tensors[stored_names(piece.name)[i]] = np.ascontiguousarray(part)
            continue
        for piece, part in entry.take_apart(np.asarray(leaf, np.float32), entry.transposed):
            assert part.shape == piece.shape, entry.path
            tensors[piece.name] = np.ascontiguousarray(part)
    return tensors


def bfloat16(x: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The bits of the nearest bfloat16, ties to even; NumPy has no such type."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(x), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def stored(x: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    """An array as its file has it, float32 in `dtype`."""
    if x.dtype != np.float32 or dtype == "float32":
        return np.ascontiguousarray(x)
    return bfloat16(x) if dtype == "bfloat16" else np.ascontiguousarray(x, np.float16)


def write_tensors(
    path: Path, tensors: Arrays, dtype: str = "float32", metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a safetensors file in place; the same tensors are the same bytes. `dtype` is for float32.

    Not by the library: what it takes for a dtype that NumPy has not differs from one version to the next. Raises
    OSError where the disk refuses.
    """
    assert dtype in DTYPES
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))  # so that each is aligned
    end = 0
    for name in order:
        x = tensors[name]
        kind = STORED[dtype if x.dtype == np.float32 else x.dtype.name]
        size = x.size * number_bytes(kind)
        header[name] = {"dtype": kind, "shape": list(x.shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(stored(tensors[name], dtype).tobytes())
