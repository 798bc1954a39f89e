"""Which matrices of a model are quantized: what config.json says, and what the user asks for.

A quantized tensor `X.weight` of a checkpoint is stored as three: `X.weight` packed in uint32,
`X.scales` and `X.biases`, as mlx-lm writes them; modes other than affine have no biases.
config.json has "quantization": {"group_size": 64, "bits": 4, "mode": "affine"}, and under the
name of a module what differs for it: another such object, or false if it is not quantized. A null
is the mode's default.
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
    from minigen.checkpoints.plan import Entry, Piece

SETTINGS = ("group_size", "bits", "mode", "quant_method")  # the keys that are not names of modules
READ = "affine in 1 to 6 and 8 bits, mxfp4, mxfp8 and nvfp4"
KEYS = (
    "quantization",
    "quantization_config",
)  # in config.json; mlx-lm writes both, with equal values
GROUP = 64  # the default
MIXED_8BIT = ("embedding.weight", "head.weight")  # what "mixed" quantizes to 8 bits


@dataclass(frozen=True)
class Declared:
    """What config.json says about quantization.

    Fields:
        default: The packing of modules that are not mentioned.
        modules: The packings of those that are; None: that module is not quantized.
    """

    default: Packing
    modules: Mapping[str, Packing | None]

    def of(self, module: str) -> Packing | None:
        """The packing of a module, or None."""
        return self.modules.get(module, self.default)


def read_declared(config: Mapping[str, Any], where: str = "config.json") -> Declared | None:
    """What a config.json says about quantization; None if the model is not quantized.

    Raises CheckpointError: it has a method or a size that minigen does not read.
    """
    keys = [key for key in KEYS if config.get(key) is not None]
    if not keys:
        return None
    values, where = config[keys[0]], f"{where}: {keys[0]}"
    if not isinstance(values, Mapping):
        raise CheckpointError(f"{where} is {values!r:.60}: it must be an object")
    method = values.get("quant_method") or values.get("mode") or "affine"
    if method not in tuple(MODES):
        raise CheckpointError(
            f"{where} has the method {method!r:.60}: minigen reads mlx-lm's {READ}; use the "
            "unquantized model, and quantize it with --quant or minigen convert --quant"
        )
    for key in ("bits", "group_size"):
        if key not in values and "quant_method" not in values:
            raise CheckpointError(f"{where}: {key} is missing")
    modules = dict[str, Packing | None]()
    for name, value in values.items():
        if name in SETTINGS:
            continue
        if not isinstance(value, bool | Mapping):
            raise CheckpointError(f"{where} has {name!r}, which is {value!r:.60}: unknown setting")
        if value is False:
            modules[name] = None
        elif value is not True:
            modules[name] = read_packing(value, f"{where}, {name}")
    return Declared(read_packing({**values, "mode": method}, where), modules)


def read_packing(values: Mapping[str, Any], where: str) -> Packing:
    """A packing, as mlx-lm reads it: without a mode it is affine, whatever the default's mode.

    Raises CheckpointError: minigen does not read it.
    """
    c = HubConfig(values, where)
    name = c.get("mode", "affine")
    if name not in tuple(MODES):
        raise c.fail("mode", f"minigen reads {READ}")
    mode = MODES[name]
    packing = Packing(
        bits=c.integer("bits", mode.bits[0]),
        group=c.integer("group_size", mode.groups[0]),
        mode=name,
    )
    check_known(c, "bits", packing.bits, mode.bits)
    check_known(c, "group_size", packing.group, mode.groups)
    return packing


def check_known(c: HubConfig, key: str, value: int, known: Iterable[int]) -> None:
    """Raises CheckpointError for a number that the mode does not have."""
    if value not in known:
        listed = ", ".join(str(number) for number in sorted(known))
        raise c.fail(key, f"for the mode {c.get('mode', 'affine')} minigen reads {listed}")


def find_packed(
    entries: Iterable[Entry],
    tensors: Mapping[str, TensorInfo],
    declared: Declared | None,
    where: Path,
) -> dict[str, Packing]:
    """The stored matrices that are quantized, by name.

    These are the ones that config.json mentions, or that have scales or codes.

    Raises CheckpointError: the columns of one are not a multiple of its group.
    """
    packed = dict[str, Packing]()
    if declared is None:
        return packed
    for entry in entries:
        for piece in entry.pieces:
            module = module_of(piece.name)
            packing = declared.of(module)
            if packing is None or len(piece.shape) != 2:
                continue
            if module in declared.modules or has_codes(piece, tensors):
                check_can_be_packed(piece, entry.transposed, packing, where)
                packed[piece.name] = packing
    return packed


def has_codes(piece: Piece, tensors: Mapping[str, TensorInfo]) -> bool:
    """Whether a stored tensor looks quantized."""
    _, scales, _ = stored_names(piece.name)
    stored = tensors.get(piece.name)
    return scales in tensors or (stored is not None and stored.dtype == "U32")


def check_can_be_packed(piece: Piece, transposed: bool, packing: Packing, where: Path) -> None:
    """Raises CheckpointError for a matrix that cannot be quantized in this way."""
    fault = ""
    if transposed:
        fault = "is quantized as (in, out); minigen reads only (out, in), with the names of mlx-lm"
    elif piece.shape[1] % packing.group:
        fault = f"has {piece.shape[1]} columns, not a multiple of its group_size {packing.group}"
    if fault:
        raise CheckpointError(
            f"the tensors in {where} do not fit its config.json; {piece.name} {fault}"
        )


def quantizable(path: str, param: Param) -> bool:
    """Whether `--quant` applies to a parameter: to matrices, but not to learned positions.

    A token adds just one row of those.
    """
    return len(param.shape) == 2 and path != "positions.weight"


def choose_packings(
    quant: str | int | None,
    architecture: Architecture,
    stored: Packings,
    where: str,
    group: int = GROUP,
) -> Packings:
    """How the matrices of a model are quantized once it is loaded.

    Args:
        quant: What the user asks for: "8", "4" or "mixed". Matrices whose rows are not a multiple
            of `group` stay as they are. None: as they are stored.
        architecture: The model.
        stored: How they are stored.
        where: The name of the model, for messages.
        group: How many weights share a scale.

    Raises UsageError: `quant` or `group` is unknown, the model is quantized already, or no
    matrix can be quantized.
    """
    if quant is None:
        return stored
    quant = str(quant)  # 8 and "8" are the same
    if quant not in QUANTS:
        raise UsageError(f"unknown quant {quant!r}: choose {', '.join(QUANTS)}")
    if group not in GROUPS:
        raise UsageError(f"the group is {group}: choose {', '.join(map(str, GROUPS))}")
    if stored:
        raise UsageError(
            f"{where} is quantized already ({name_of(stored)}): leave --quant out, or use the "
            "unquantized model"
        )
    inner = Packing(8 if quant == "8" else 4, group)
    outer = Packing(4 if quant == "4" else 8, group)
    packings = {}
    for path, param in flatten(architecture.shapes()).items():
        if quantizable(path, param) and param.shape[1] % group == 0:
            packings[path] = outer if path in MIXED_8BIT else inner
    if not packings:
        raise UsageError(
            f"{where} has no matrix whose rows are a multiple of {group}: --quant has nothing to "
            "quantize"
        )
    return packings


def left_out(architecture: Architecture, packings: Packings) -> dict[str, int]:
    """The row widths of matrices that are not quantized, with * for the number of a layer."""
    widths = {}
    for path, param in flatten(architecture.shapes()).items():
        if quantizable(path, param) and path not in packings:
            widths[re.sub(r"\.\d+\.", ".*.", path)] = param.shape[1]
    return widths


def name_of(packings: Packings) -> str:
    """Such as "q4" or "mxfp4"; "mixed" for several packings, "" for none."""
    names = {packing.label for packing in packings.values()}
    if len(names) > 1:
        return "mixed"
    return "".join(names)
