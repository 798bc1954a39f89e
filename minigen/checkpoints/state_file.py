"""States on disk: one safetensors file, checked against the model that is to go on from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.backends.base import Backend
from minigen.checkpoints.checkpoint import read_file, read_metadata
from minigen.errors import CheckpointError
from minigen.files import replacing
from minigen.models.architecture import Architecture
from minigen.models.state import State
from minigen.models.stored_dtypes import STORED
from minigen.reading import parse_object

OLDER = {"0": "h", "1": "c"}
KEY = "minigen_state"  # of the file's metadata: what the state is, as JSON


def save_state(ops: Backend, state: State, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Writes the state, with metadata of the caller's, so that a crash leaves an older file whole.

    Raises MinigenError where the file cannot be written.
    """
    about = {
        "kind": state.kind,
        "length": state.length,
        "batch": state.batch,
        "dtype": ops.dtype,
        "starts": None if state.starts is None else state.starts.tolist(),
    }
    with replacing(path) as beside:
        ops.save(beside, state.arrays(), {**(metadata or {}), KEY: json.dumps(about)})


def load_state(ops: Backend, architecture: Architecture, path: Path) -> tuple[Any, dict[str, str]]:
    """The state in a file and the caller's metadata. It has room for the tokens it holds; `reserve` makes more.

    Raises CheckpointError for a file that is damaged, no state, or one of another model or dtype, by name.
    """
    headers, metadata = read_file(path), read_metadata(path)
    try:
        about = parse_object(metadata.pop(KEY))
        length, batch, kind, dtype = about["length"], about["batch"], about["kind"], about["dtype"]
        starts = None if about["starts"] is None else np.array(about["starts"])
        whole = type(length) is int and type(batch) is int and 0 <= length < 2**31 and 1 <= batch < 2**31
        claimed = batch > 1 and any(0 in info.shape for info in headers.values())  # rows of nothing prove nothing
        if not whole or claimed or (starts is not None and not right_starts(starts, batch, length)):
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is no saved state") from error
    codes = {name for name in headers if f"{name}.scales" in headers}  # of what is quantized
    kinds = {info.dtype == ("U32" if name in codes else STORED[ops.dtype]) for name, info in headers.items()}
    if dtype != ops.dtype or False in kinds:
        raise CheckpointError(f"{path} was saved in {dtype} and the model runs in {ops.dtype}: load it with that dtype")
    state = architecture.new_state(ops, 1, 1)  # one row and one token show the shapes; the file may claim many
    difference = state.unlike(str(kind))
    if difference:
        raise CheckpointError(f"{path} {difference}")
    wanted = {name: (batch, *shape[1:]) for name, shape in state.shapes(length).items()}
    names = {name: present_name(name) for name in headers}
    found = {names[name]: info.shape for name, info in headers.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise CheckpointError(
                f"{path} is the state of another model: {name} is {found.get(name, 'missing')} there, "
                f"this model's is {wanted.get(name, 'missing')}"
            )
    arrays = ops.load(path)
    state = architecture.new_state(ops, batch, 1, starts)  # now that the file is known to have so many rows
    state.restore({present: arrays[name] for name, present in names.items()}, length)
    ops.sync(state.arrays())
    return state, metadata


def present_name(name: str) -> str:
    """What an array of a state is called now: those of recurrent layers were numbered once."""
    layer, _, slot = name.partition(".")
    return f"{layer}.{OLDER.get(slot, slot)}"


def right_starts(starts: npt.NDArray[Any], batch: int, length: int) -> bool:
    """Whether these are the first tokens of so many rows: whole numbers below the length."""
    return starts.shape == (batch,) and starts.dtype.kind == "i" and bool(((starts >= 0) & (starts < length)).all())
