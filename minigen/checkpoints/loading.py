"""From a checkpoint's tensors to a parameter tree: every name and shape is checked before a byte is read."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from minigen.backends.base import Array, Backend, Quantized, Tree
from minigen.backends.recoding import as_floats, recode, scales_of
from minigen.checkpoints.adapters import Adapter
from minigen.checkpoints.checkpoint import FLOAT_DTYPES, read_config
from minigen.checkpoints.gguf.folder import WEIGHTS, read_sources
from minigen.checkpoints.gguf.tensors import GGUFTensors
from minigen.checkpoints.held import growth, held_on, held_packings
from minigen.checkpoints.plan import Entry, plan, unused_names
from minigen.checkpoints.quantization import Declared, find_packed
from minigen.errors import CheckpointError, first_of
from minigen.families.family import Family
from minigen.models.architecture import Architecture
from minigen.models.packing import Packing, Packings, stored_names
from minigen.models.tensor_info import TensorInfo
from minigen.tree import unflatten

SHOWN = 20  # names of one kind of fault that a message lists
NAMES = {
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
}  # safetensors' names of the dtypes minigen computes in

log = logging.getLogger("minigen")


def check(
    entries: list[Entry],
    tensors: Mapping[str, TensorInfo],
    architecture: Architecture,
    family: Family,
    where: Path,
    packed: Packings,
) -> None:
    """Raises one CheckpointError that names every missing, unexpected and misshapen tensor, and those of a dtype that
    they cannot have. `packed`: the quantized ones, by name."""
    wanted: dict[str, tuple[int, ...]] = {}
    integers: dict[str, str] = {}
    for piece in (piece for entry in entries for piece in entry.pieces):
        packing = packed.get(piece.name)
        wanted |= {piece.name: piece.shape} if packing is None else packing.tensors(piece.name, piece.shape)
        integers |= {} if packing is None else packing.integers(piece.name)
    ignored = re.compile("|".join((*family.ignored, "(?!)")))
    unused = {part for name in unused_names(architecture, family) for part in stored_names(name)}
    dtypes = {name: (integers[name],) if name in integers else FLOAT_DTYPES for name in wanted}
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
            f"{name} is {tensors[name].dtype}, not {'' if name in integers else 'one of '}{', '.join(dtypes[name])}"
            for name in wanted
            if name in tensors and tensors[name].dtype not in dtypes[name]
        ],
    }
    found = [f"{len(names)} {kind}: {listed(names)}" for kind, names in faults.items() if names]
    if found:
        raise CheckpointError(f"the tensors in {where} do not fit its config.json; {'; '.join(found)}")


def listed(names: list[str]) -> str:
    return first_of(names, SHOWN)


def stored_dtype(tensors: Mapping[str, TensorInfo]) -> str:
    """The dtype that most of a checkpoint's tensors have, by our name for it; float32 where that is none of ours. The
    integers of quantized weights do not count."""
    dtypes = [tensor.dtype for tensor in tensors.values() if tensor.dtype not in ("U32", "U8")] or ["F32"]
    return NAMES.get(max(set(dtypes), key=dtypes.count), "float32")


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
    """Reads the weights into the layout that the model computes with, once: joined, transposed, in the backend's dtype,
    with an adapter that fits merged in. `declared`: which of them are stored quantized. Those of `packings` that are
    not, by path, are quantized one by one, so that the model is never there in floats as a whole.

    Raises CheckpointError as `check` does. Warns, by name, of weights with NaN or infinity.
    """
    entries = plan(architecture, family, tensors)
    packed = find_packed(entries, tensors, declared, where)
    check(entries, tensors, architecture, family, where, packed)
    joined = held_packings(entries, packed)
    split = [e.path for e in entries if e.path not in joined and any(piece.name in packed for piece in e.pieces)]
    if split:
        log.warning(
            "%s has parts of %s quantized in different ways: these are joined in %s", where, listed(split), ops.dtype
        )
    held = held_on(ops.name, joined)
    grown = growth(entries, packed, joined, ops.name, ops.dtype)
    if grown:
        log.warning("%s: %s holds %s", where, ops.name, grown)
    merged = adapter.merger(ops, family.prefix) if adapter is not None else None
    files = {file: open_file(ops, file) for file in {tensor.file for tensor in tensors.values()}}

    def read(name: str, transposed: bool, kept: Packing | None) -> Array | Quantized:
        if name in packed:
            arrays = [files[tensors[part].file][part] for part in packed[name].names(name)]
            return recoded(ops, arrays, packed[name], kept)
        stored = files[tensors[name].file][name]
        return ops.astype(merged(name, transposed, stored) if merged else stored, ops.dtype)

    flat: dict[str, Array | Quantized] = {}
    finite: dict[str, bool] = {}
    for entry in entries:
        packing = held.get(entry.path)
        x = entry.assemble(ops, [read(piece.name, entry.transposed, packing) for piece in entry.pieces])
        packing = (packings or {}).get(entry.path)
        if packing is not None and entry.path not in joined:
            finite[entry.path] = ops.all_finite([x])[0]
            x = ops.quantize(x, packing.bits, packing.group)
        ops.sync(x)  # now, so that what it is made of leaves the memory
        flat[entry.path] = x
    rest = [(path, x) for path, leaf in flat.items() if path not in finite for x in floats_of(ops, leaf)]
    for (path, _), ok in zip(rest, ops.all_finite([x for _, x in rest]), strict=True):
        finite[path] = finite.get(path, True) and ok
    bad = [piece.name for entry in entries if not finite[entry.path] for piece in entry.pieces]
    if bad:
        log.warning("%s has weights that are NaN or infinite, in %s: its text will be noise", where, listed(bad))
    params = unflatten(flat)
    ops.sync(params)
    return params


def open_file(ops: Backend, path: Path) -> Mapping[str, Array]:
    """The arrays of a file of weights, by name; each is read when it is looked up."""
    if path.name != WEIGHTS:
        return ops.load(path)
    folder = path.parent
    return GGUFTensors(ops, path, read_sources(folder, read_config(folder)))


def recoded(ops: Backend, arrays: Iterable[Array], stored: Packing, held: Packing | None) -> Array | Quantized:
    """A matrix whose tensors are `arrays`, as the backend holds it; None: in floats."""
    packed, *others = arrays
    if stored.mode == "affine":
        others = [ops.astype(x, ops.dtype) for x in others]
    scales, biases = (*others, None)[:2]
    matrix = Quantized(packed, scales, biases, stored.group, stored.bits, stored.mode)
    return as_floats(ops, matrix) if held is None else recode(ops, matrix, held.mode, held.bits)


def floats_of(ops: Backend, x: Array | Quantized) -> tuple[Array, ...]:
    return (scales_of(ops, x), *x.arrays[2:]) if isinstance(x, Quantized) else (x,)
