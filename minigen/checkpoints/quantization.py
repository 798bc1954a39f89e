"""Which matrices of a model are quantized, and how: what config.json says of them, and what a user asks for.

A quantized tensor `X.weight` of a checkpoint is three: `X.weight` packed in uint32, `X.scales` and `X.biases`, as
mlx-lm writes them; but for the mode affine there are no biases. config.json has "quantization": {"group_size": 64,
"bits": 4, "mode": "affine"}, and by the name of a module what differs there: another such object, or false for one that
is left as it is. A null is the mode's default.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigen.backends.base import QUANTS
from minigen.backends.quantized import GROUPS, MODES
from minigen.errors import CheckpointError, UsageError
from minigen.families.config import HubConfig
from minigen.layers.param import Param
from minigen.models.architecture import Architecture
from minigen.models.packing import Packing, Packings, module_of, stored_names
from minigen.models.tensor_info import TensorInfo
from minigen.tree import flatten

if TYPE_CHECKING:
    from minigen.checkpoints.plan import Entry

SETTINGS = ("group_size", "bits", "mode", "quant_method")  # no names of modules
READ = "affine in 1 to 6 and 8 bits, mxfp4, mxfp8 and nvfp4"
KEYS = ("quantization", "quantization_config")  # in config.json: mlx-lm writes both, alike
GROUP = 64  # where none is asked for
OUTER = ("embedding.weight", "head.weight")  # in 8 bits where the precision is mixed


@dataclass(frozen=True)
class Declared:
    """What config.json says. `modules`: what differs, None for a module that is not quantized."""

    default: Packing
    modules: Mapping[str, Packing | None]

    def of(self, module: str) -> Packing | None:
        return self.modules.get(module, self.default)


def read_declared(config: Mapping[str, Any], where: str = "config.json") -> Declared | None:
    """None for a model that is not quantized. Raises CheckpointError for a method or a size that minigen does not read,
    naming it."""
    key = next((key for key in KEYS if config.get(key) is not None), None)
    if key is None:
        return None
    given, where = config[key], f"{where}: {key}"
    if not isinstance(given, Mapping):
        raise CheckpointError(f"{where} is {given!r:.60}: it must be an object")
    method = given.get("quant_method") or given.get("mode") or "affine"
    if method not in tuple(MODES):
        raise CheckpointError(
            f"{where} is of the method {method!r:.60}: minigen reads mlx-lm's {READ}; take the model in floats, and "
            "quantize it with --quant or minigen convert --quant"
        )
    missing = [key for key in ("bits", "group_size") if key not in given and "quant_method" not in given]
    if missing:
        raise CheckpointError(f"{where}: {missing[0]} is missing")
    modules = dict[str, Packing | None]()
    for name, value in given.items():
        if name in SETTINGS:
            continue
        if not isinstance(value, bool | Mapping):
            raise CheckpointError(f"{where} has {name!r}, which is {value!r:.60}: minigen does not know it")
        if value is False:
            modules[name] = None
        elif value is not True:
            modules[name] = read_packing(value, f"{where}, {name}")
    return Declared(read_packing({**given, "mode": method}, where), modules)


def read_packing(given: Mapping[str, Any], where: str) -> Packing:
    """As mlx-lm reads it: a module's mode is affine unless it says otherwise, whatever the others have."""
    c = HubConfig(given, where)
    name = c.get("mode", "affine")
    if name not in tuple(MODES):
        raise c.fail("mode", f"minigen reads {READ}")
    mode = MODES[name]
    found = Packing(c.integer("bits", mode.bits[0]), c.integer("group_size", mode.groups[0]), name)
    for key, value, known in (("bits", found.bits, mode.bits), ("group_size", found.group, mode.groups)):
        if value not in known:
            raise c.fail(key, f"for the mode {name} minigen reads {', '.join(map(str, sorted(known)))}")
    return found


def find_packed(
    entries: Iterable[Entry], tensors: Mapping[str, TensorInfo], declared: Declared | None, where: Path
) -> dict[str, Packing]:
    """The stored matrices that are quantized, by name: those that config.json names, or that have scales or codes.

    Raises CheckpointError for one whose rows are no multiple of its group.
    """
    found = dict[str, Packing]()
    for piece, transposed in ((piece, entry.transposed) for entry in entries for piece in entry.pieces):
        module = module_of(piece.name)
        packing = declared.of(module) if declared is not None and len(piece.shape) == 2 else None
        if declared is None or packing is None:
            continue
        stored = tensors.get(piece.name)
        is_there = stored_names(piece.name)[1] in tensors or (stored is not None and stored.dtype == "U32")
        if is_there or module in declared.modules:
            fault = ""
            if transposed:
                fault = "is quantized (in, out), which is read (out, in) alone, under the names that mlx-lm writes"
            elif piece.shape[1] % packing.group:
                fault = f"has {piece.shape[1]} columns, which its group_size {packing.group} does not divide"
            if fault:
                raise CheckpointError(f"the tensors in {where} do not fit its config.json; {piece.name} {fault}")
            found[piece.name] = packing
    return found


def quantizable(path: str, param: Param) -> bool:
    """Whether a parameter is a matrix that `--quant` is about: not learned positions, of which a token adds one row."""
    return len(param.shape) == 2 and path != "positions.weight"


def choose_packings(
    quant: str | int | None, architecture: Architecture, held: Packings, where: str, group: int = GROUP
) -> Packings:
    """What a model's matrices are held in: without `quant`, as they are stored (`held`), with it in these bits, but for
    those whose rows are no multiple of `group`.

    Raises UsageError for an unknown `quant` or `group`, a model that is quantized already, and one of which nothing can
    be.
    """
    if quant is None:
        return held
    quant = str(quant)  # 8 and "8" are the same
    if quant not in QUANTS:
        raise UsageError(f"unknown quant {quant!r}: choose {', '.join(QUANTS)}")
    if group not in GROUPS:
        raise UsageError(f"a group of {group}: choose {', '.join(map(str, GROUPS))}")
    if held:
        raise UsageError(f"{where} is quantized already ({name_of(held)}): leave --quant out, or take the float model")
    inner, outer = Packing(8 if quant == "8" else 4, group), Packing(4 if quant == "4" else 8, group)
    found = {
        path: outer if path in OUTER else inner
        for path, param in flatten(architecture.shapes()).items()
        if quantizable(path, param) and param.shape[1] % group == 0
    }
    if not found:
        raise UsageError(f"{where} has no matrix whose rows are a multiple of {group}: --quant has nothing to quantize")
    return found


def left_out(architecture: Architecture, packings: Packings) -> dict[str, int]:
    """The matrices that stay as they are, with a * for the number of a layer, and the width of their rows."""
    return {
        re.sub(r"\.\d+\.", ".*.", path): param.shape[1]
        for path, param in flatten(architecture.shapes()).items()
        if quantizable(path, param) and path not in packings
    }


def name_of(packings: Packings) -> str:
    """ "q4" or "mxfp4", say; "mixed" where there are several, "" where there is none."""
    names = {packing.label for packing in packings.values()}
    return "mixed" if len(names) > 1 else "".join(names)
