"""From a checkpoint's tensors to a parameter tree: every name and shape is checked before a byte is read."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from minigen.backends.base import Array, Backend, Tree
from minigen.checkpoint import FLOAT_DTYPES, TensorInfo
from minigen.errors import CheckpointError
from minigen.families.adapters import Adapter, key_of
from minigen.families.family import Architecture, Family
from minigen.layers.param import Param
from minigen.tree import flatten, unflatten

SHOWN = 20  # names of one kind of fault that a message lists
NAMES = {
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
}  # safetensors' names of the dtypes minigen computes in

log = logging.getLogger("minigen")


@dataclass(frozen=True)
class Piece:
    """One stored tensor and the shape that the architecture wants it in."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Entry:
    """One array of the tree and the tensors it is made of."""

    path: str
    pieces: tuple[Piece, ...]
    transposed: bool


def plan(architecture: Architecture, family: Family, names: Iterable[str]) -> list[Entry]:
    """Which tensor goes where. The prefix is dropped from the names where the checkpoint has them without it."""
    given = set(names)
    shorter = {
        name.removeprefix(family.prefix) for s in family.names.values() for name in s.names if family.prefix in name
    }
    bare = not any(name.startswith(family.prefix) for name in given) and not shorter.isdisjoint(given)
    entries = []
    for path, param in flatten(architecture.shapes()).items():
        source = family.names[re.sub(r"\.\d+\.", ".*.", path, count=1)]
        index = re.search(r"\.(\d+)\.", path)
        stored = [name.replace("*", index[1]) if index else name for name in source.names]
        if bare:
            stored = [name.removeprefix(family.prefix) for name in stored]
        pieces = zip(stored, piece_shapes(param, len(stored)), strict=True)
        entries.append(
            Entry(
                path,
                tuple(Piece(name, shape[::-1] if source.transposed else shape) for name, shape in pieces),
                source.transposed,
            )
        )
    return entries


def piece_shapes(param: Param, count: int) -> list[tuple[int, ...]]:
    """The shape of each of `count` tensors that are joined to this parameter."""
    if count == 1:
        return [param.shape]
    assert len(param.parts) == count
    return [(rows, *param.shape[1:]) for rows in param.parts]


def check(
    entries: list[Entry],
    tensors: Mapping[str, TensorInfo],
    architecture: Architecture,
    family: Family,
    where: Path,
) -> None:
    """Raises one CheckpointError that names every missing, unexpected, misshapen and non-float tensor."""
    wanted = {piece.name: piece.shape for entry in entries for piece in entry.pieces}
    ignored = re.compile("|".join((*family.ignored, "(?!)")))
    unused = set(unused_names(architecture, family))
    faults = {
        "missing": [f"{name} {shape}" for name, shape in wanted.items() if name not in tensors],
        "unexpected": [
            f"{name} {tensor.shape}"
            for name, tensor in tensors.items()
            if name not in wanted and name not in unused and not ignored.fullmatch(name.removeprefix(family.prefix))
        ],
        "misshapen": [
            f"{name} is {tensors[name].shape}, the config asks for {shape}"
            for name, shape in wanted.items()
            if name in tensors and tensors[name].shape != shape
        ],
        "of the wrong dtype": [
            f"{name} is {tensors[name].dtype}, not one of {', '.join(FLOAT_DTYPES)}"
            for name in wanted
            if name in tensors and tensors[name].dtype not in FLOAT_DTYPES
        ],
    }
    found = [f"{len(names)} {kind}: {listed(names)}" for kind, names in faults.items() if names]
    if found:
        raise CheckpointError(f"the tensors in {where} do not fit its config.json; {'; '.join(found)}")


def unused_names(architecture: Architecture, family: Family) -> tuple[str, ...]:
    """Names of tensors that a tied model has no use for: hub files often store the head a second time."""
    return () if "head.weight" in flatten(architecture.shapes()) else family.names["head.weight"].names


def matrices(entries: list[Entry], family: Family) -> dict[str, tuple[int, ...]]:
    """The shape of every stored tensor as the model computes with it, (out, in), by its key for adapters."""
    return {
        key_of(piece.name, family.prefix): piece.shape[::-1] if entry.transposed else piece.shape
        for entry in entries
        for piece in entry.pieces
    }


def listed(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def stored_dtype(tensors: Mapping[str, TensorInfo]) -> str:
    """The dtype that most of a checkpoint's tensors have, by our name for it; float32 where that is none of ours."""
    dtypes = [tensor.dtype for tensor in tensors.values()]
    return NAMES.get(max(set(dtypes), key=dtypes.count), "float32")


def load_params(
    ops: Backend,
    architecture: Architecture,
    family: Family,
    tensors: Mapping[str, TensorInfo],
    where: Path,
    adapter: Adapter | None = None,
) -> Tree:
    """Reads the weights into the layout that the model computes with, once: joined, transposed, in the backend's dtype,
    with an adapter that fits merged in.

    Raises CheckpointError as `check` does. Warns, by name, of weights with NaN or infinity.
    """
    entries = plan(architecture, family, tensors)
    check(entries, tensors, architecture, family, where)
    merged = adapter.merger(ops, family.prefix) if adapter is not None else None
    files = {file: ops.load(file) for file in {tensor.file for tensor in tensors.values()}}

    def read(name: str, transposed: bool) -> Array:
        stored = files[tensors[name].file][name]
        return ops.astype(merged(name, transposed, stored) if merged else stored, ops.dtype)

    flat: dict[str, Array] = {}
    for entry in entries:
        arrays = [read(piece.name, entry.transposed) for piece in entry.pieces]
        joined = arrays[0] if len(arrays) == 1 else ops.concat(arrays, axis=0)
        flat[entry.path] = (
            ops.contiguous(ops.permute(joined, (1, 0))) if entry.transposed and joined.ndim == 2 else joined
        )
    finite = ops.all_finite(list(flat.values()))
    bad = [piece.name for entry, ok in zip(entries, finite, strict=True) if not ok for piece in entry.pieces]
    if bad:
        log.warning("%s has weights that are NaN or infinite, in %s: its text will be noise", where, listed(bad))
    params = unflatten(flat)
    ops.sync(params)
    return params
