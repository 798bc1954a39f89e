"""From a checkpoint's tensors to a parameter tree."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from minigen.backends.base import Array, Backend, Quantized, Tree
from minigen.backends.recoding import as_floats, recode, scales_of
from minigen.checkpoints.adapters import Adapter
from minigen.checkpoints.backend_packings import growth, joined_packings, packings_on
from minigen.checkpoints.fitting import check, listed
from minigen.checkpoints.plan import Entry, plan
from minigen.checkpoints.quantization import Declared, find_packed
from minigen.families.family import Family
from minigen.models import stored_dtypes
from minigen.models.architecture import Architecture
from minigen.models.packing import Packing, Packings
from minigen.models.tensor_info import TensorInfo
from minigen.tree import unflatten

log = logging.getLogger("minigen")

# Reads a stored tensor: its name, whether it is stored (in, out), and the packing to convert it to.
Reader = Callable[[str, bool, Packing | None], Array | Quantized]


def stored_dtype(tensors: Mapping[str, TensorInfo]) -> str:
    """The dtype that most tensors of a checkpoint have, integers of quantized weights not counted.

    It is float32 if minigen does not compute in that dtype.
    """
    dtypes = [tensor.dtype for tensor in tensors.values() if tensor.dtype not in ("U32", "U8")]
    if not dtypes:
        return "float32"
    commonest = max(set(dtypes), key=dtypes.count)
    if commonest not in stored_dtypes.FLOATS:
        return "float32"
    return stored_dtypes.NAMES[commonest]


def load_params(
    ops: Backend,
    architecture: Architecture,
    family: Family,
    tensors: Mapping[str, TensorInfo],
    where: Path,
    adapter: Adapter | None = None,
    declared: Declared | None = None,
    packings: Packings | None = None,
) -> Tree:
    """Reads the weights into the layout that the model computes with: joined and transposed.

    Every name, shape and dtype is checked before a byte is read.

    Args:
        ops: The operations of a backend; the weights have its dtype.
        architecture: The model.
        family: How its checkpoints name tensors.
        tensors: The tensors of the checkpoint, by name.
        where: Its folder, for messages.
        adapter: An adapter to merge into the weights; it must fit.
        declared: Which of the tensors are stored quantized.
        packings: Which matrices to quantize, by path. They are quantized one by one, so the whole
            model is never in memory as floats.

    Returns:
        The parameter tree.

    Raises CheckpointError: the tensors do not fit the architecture. NaN or infinity is a
    warning.
    """
    entries = plan(architecture, family, tensors)
    packed = find_packed(entries, tensors, declared, where)
    check(entries, tensors, architecture, family, where, packed)
    joined = joined_packings(entries, packed)
    warn_of_conversions(ops, entries, packed, joined, where)
    on_backend = packings_on(ops.name, joined)
    read = reader(ops, family, tensors, adapter, packed)

    flat: dict[str, Array | Quantized] = {}
    finite: dict[str, bool] = {}
    for entry in entries:
        packing = on_backend.get(entry.path)
        parts = [read(piece.name, entry.transposed, packing) for piece in entry.pieces]
        x = entry.assemble(ops, parts)
        new_packing = (packings or {}).get(entry.path)
        if new_packing is not None and entry.path not in joined:
            finite[entry.path] = ops.all_finite([x])[0]
            x = ops.quantize(x, new_packing.bits, new_packing.group)
        ops.sync(x)  # at once, so that the parts it is made of leave the memory
        flat[entry.path] = x
    unchecked = {path: x for path, x in flat.items() if path not in finite}
    finite |= check_finite(ops, unchecked)
    bad = []
    for entry in entries:
        if not finite[entry.path]:
            bad += [piece.name for piece in entry.pieces]
    if bad:
        log.warning(
            "%s has weights that are NaN or infinite, in %s: its text will be noise",
            where,
            listed(bad),
        )
    params = unflatten(flat)
    ops.sync(params)
    return params


def warn_of_conversions(
    ops: Backend, entries: list[Entry], packed: Packings, joined: Packings, where: Path
) -> None:
    """Warns of quantized matrices that become floats, or that need more memory on this backend."""
    floats = []
    for entry in entries:
        is_packed = any(piece.name in packed for piece in entry.pieces)
        if is_packed and entry.path not in joined:
            floats.append(entry.path)
    if floats:
        log.warning(
            "%s has parts of %s quantized in different ways: they are joined in %s",
            where,
            listed(floats),
            ops.dtype,
        )
    grown = growth(entries, packed, joined, ops.name, ops.dtype)
    if grown:
        log.warning("%s: %s holds %s", where, ops.name, grown)


def reader(
    ops: Backend,
    family: Family,
    tensors: Mapping[str, TensorInfo],
    adapter: Adapter | None,
    packed: Packings,
) -> Reader:
    """A function that reads a tensor, merges the adapter, and converts for the backend."""
    merge = None
    if adapter is not None:
        merge = adapter.merger(ops, family.prefix)
    paths = {tensor.file for tensor in tensors.values()}
    files = {path: ops.load(path) for path in paths}

    def load(name: str) -> Array:
        return files[tensors[name].file][name]

    def read(name: str, transposed: bool, packing: Packing | None) -> Array | Quantized:
        if name in packed:
            stored = packed[name]
            return recoded(ops, [load(part) for part in stored.names(name)], stored, packing)
        x = load(name)
        if merge is not None:
            x = merge(name, transposed, x)
        return ops.astype(x, ops.dtype)

    return read


def recoded(
    ops: Backend, arrays: Iterable[Array], stored: Packing, packing: Packing | None
) -> Array | Quantized:
    """A quantized matrix as the backend computes with it.

    Args:
        ops: The operations of the backend.
        arrays: Its stored tensors: codes, scales and, if it is affine, biases.
        stored: How it is stored.
        packing: How the backend computes with it; None: in floats.
    """
    codes, scales, *biases = arrays
    if stored.is_affine:
        scales = ops.astype(scales, ops.dtype)
        biases = [ops.astype(x, ops.dtype) for x in biases]
    bias = biases[0] if biases else None
    matrix = Quantized(codes, scales, bias, stored.group, stored.bits, stored.mode)
    if packing is None:
        return as_floats(ops, matrix)
    return recode(ops, matrix, packing.mode, packing.bits)


def check_finite(ops: Backend, flat: Mapping[str, Array | Quantized]) -> dict[str, bool]:
    """Whether each array is free of NaN and infinity, by path."""
    paths: list[str] = []
    floats: list[Array] = []
    for path, x in flat.items():
        for array in floats_of(ops, x):
            paths.append(path)
            floats.append(array)
    finite = dict.fromkeys(flat, True)
    for path, array_is_finite in zip(paths, ops.all_finite(floats), strict=True):
        finite[path] = finite[path] and array_is_finite
    return finite


def floats_of(ops: Backend, x: Array | Quantized) -> tuple[Array, ...]:
    """The arrays of a weight that can be NaN or infinite."""
    if isinstance(x, Quantized):
        return scales_of(ops, x), *x.arrays[2:]
    return (x,)
