"""Whether the tensors of a checkpoint are those that its config.json asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from minigen.checkpoints.plan import Entry, unused_names
from minigen.errors import CheckpointError, first_of
from minigen.families.family import Family
from minigen.models import stored_dtypes
from minigen.models.architecture import Architecture
from minigen.models.packing import Packings, stored_names
from minigen.models.tensor_info import TensorInfo

SHOWN = 20  # names of one kind of fault that a message lists


@dataclass(frozen=True)
class Expected:
    """The shape and the possible dtypes of a stored tensor."""

    shape: tuple[int, ...]
    dtypes: tuple[str, ...] = stored_dtypes.FLOATS


def check(
    entries: list[Entry],
    tensors: Mapping[str, TensorInfo],
    architecture: Architecture,
    family: Family,
    where: Path,
    packed: Packings,
) -> None:
    """Checks the names, shapes and dtypes of all tensors.

    Args:
        entries: The plan of the checkpoint.
        tensors: Its tensors, by name.
        architecture: The model.
        family: How checkpoints name its tensors.
        where: The folder, for messages.
        packed: How tensors are quantized, by name; those that are not in it are floats.

    Raises CheckpointError: tensors are missing, unexpected, or have another shape or dtype. It
    names all of them.
    """
    expected = expected_tensors(entries, packed)
    faults: dict[str, list[str]] = {
        "missing": [],
        "unexpected": unexpected(tensors, expected, architecture, family),
        "of the wrong shape": [],
        "of the wrong dtype": [],
    }
    for name, required in expected.items():
        tensor = tensors.get(name)
        if tensor is None:
            faults["missing"].append(f"{name} {required.shape}")
            continue
        if tensor.shape != required.shape:
            faults["of the wrong shape"].append(
                f"{name} is {tensor.shape}, the config asks for {required.shape}"
            )
        if tensor.dtype not in required.dtypes:
            allowed = ", ".join(required.dtypes)
            if len(required.dtypes) > 1:
                allowed = f"one of {allowed}"
            faults["of the wrong dtype"].append(f"{name} is {tensor.dtype}, not {allowed}")
    messages = [f"{len(names)} {kind}: {listed(names)}" for kind, names in faults.items() if names]
    if messages:
        raise CheckpointError(
            f"the tensors in {where} do not fit its config.json; {'; '.join(messages)}"
        )


def expected_tensors(entries: list[Entry], packed: Packings) -> dict[str, Expected]:
    """The tensors that a plan needs, by name."""
    expected: dict[str, Expected] = {}
    for entry in entries:
        for piece in entry.pieces:
            packing = packed.get(piece.name)
            if packing is None:
                expected[piece.name] = Expected(piece.shape)
                continue
            integers = packing.integers(piece.name)
            for name, shape in packing.tensors(piece.name, piece.shape).items():
                if name in integers:
                    expected[name] = Expected(shape, (integers[name],))
                else:
                    expected[name] = Expected(shape)
    return expected


def unexpected(
    tensors: Mapping[str, TensorInfo],
    expected: Mapping[str, Expected],
    architecture: Architecture,
    family: Family,
) -> list[str]:
    """Tensors that are neither needed, nor copies of others, nor computed by the model."""
    known = set(expected)
    for name in unused_names(architecture, family):
        known.update(stored_names(name))
    names = []
    for name, tensor in tensors.items():
        short = name.removeprefix(family.prefix)
        is_buffer = any(re.fullmatch(pattern, short) for pattern in family.ignored)
        if name not in known and not is_buffer:
            names.append(f"{name} {tensor.shape}")
    return names


def listed(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    return first_of(names, SHOWN)
