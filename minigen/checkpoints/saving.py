"""From a parameter tree to the tensors of a checkpoint: the inverse of loading.py."""

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
    """The plan of a new checkpoint. A quantized one has the names that mlx-lm uses."""
    prefix = family.prefix
    if quantized and family.mlx_prefix:
        prefix = family.mlx_prefix
    return plan(architecture, family, [prefix])


def quantization_config(
    architecture: Architecture, family: Family, packings: Packings
) -> dict[str, Any]:
    """ "quantization" in the config.json of a model with these packings.

    It has the most common packing, and the modules that differ from it.
    """
    kinds = list(packings.values())
    default = max(dict.fromkeys(kinds), key=kinds.count)
    config: dict[str, Any] = default.as_config()
    for entry in stored_plan(architecture, family, quantized=True):
        packing = packings.get(entry.path, default)
        if packing == default:
            continue
        for piece in entry.pieces:
            config[module_of(piece.name)] = packing.as_config()
    return config


def to_tensors(
    architecture: Architecture, family: Family, params: Tree
) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a checkpoint of the family, by name, for a tree of NumPy arrays.

    Arrays are split and transposed as the family stores them. A quantized matrix becomes three
    tensors; in such a checkpoint nothing is transposed.
    """
    flat = flatten(params)
    tensors = dict[str, npt.NDArray[Any]]()
    quantized = any(isinstance(x, Quantized) for x in flat.values())
    for entry in stored_plan(architecture, family, quantized):
        leaf = flat[entry.path]
        if isinstance(leaf, Quantized):
            for index, array in enumerate(leaf.arrays):
                for piece, part in entry.take_apart(array, transposed=False):
                    tensors[stored_names(piece.name)[index]] = np.ascontiguousarray(part)
            continue
        for piece, part in entry.take_apart(np.asarray(leaf, np.float32), entry.transposed):
            assert part.shape == piece.shape, entry.path
            tensors[piece.name] = np.ascontiguousarray(part)
    return tensors


def bfloat16(x: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The bits of the nearest bfloat16 values, ties to even; NumPy has no such type."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(x), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def stored(x: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    """An array as it is stored: float32 in `dtype`, others unchanged."""
    if x.dtype != np.float32 or dtype == "float32":
        return np.ascontiguousarray(x)
    if dtype == "bfloat16":
        return bfloat16(x)
    return np.ascontiguousarray(x, np.float16)


def write_tensors(
    path: Path, tensors: Arrays, dtype: str = "float32", metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a safetensors file in place. Equal tensors give equal bytes.

    The library is not used, because how it accepts bfloat16 differs between its versions.

    Args:
        path: The file.
        tensors: The tensors, by name.
        dtype: The dtype that float32 tensors are stored in.
        metadata: Free-form metadata of the file.

    Raises OSError: the file cannot be written.
    """
    assert dtype in DTYPES
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    # Larger numbers first, so that every tensor is aligned.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    end = 0
    for name in order:
        x = tensors[name]
        number = dtype if x.dtype == np.float32 else x.dtype.name
        start, end = end, end + x.size * number_bytes(STORED[number])
        header[name] = {
            "dtype": STORED[number],
            "shape": list(x.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(stored(tensors[name], dtype).tobytes())
