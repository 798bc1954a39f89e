"""States on disk: one safetensors file, checked against the model that is to continue from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from minigen.backends.base import Backend
from minigen.checkpoints.checkpoint import read_file, read_metadata
from minigen.errors import CheckpointError
from minigen.files import replacing
from minigen.models.architecture import Architecture
from minigen.models.state import State
from minigen.models.stored_dtypes import STORED
from minigen.models.tensor_info import TensorInfo
from minigen.reading import parse_object

OLD_NAMES = {"0": "h", "1": "c"}  # slots of recurrent layers were once numbered
KEY = "minigen_state"  # of the file's metadata: a description of the state, as JSON


@dataclass(frozen=True)
class Description:
    """What a file says about its state.

    Fields:
        kind: As `State.kind`.
        length: The number of tokens read, padding counted.
        batch: The number of rows.
        dtype: The dtype that the model ran in.
        starts: (batch,), the first real token of each row; None: no row is padded.
    """

    kind: str
    length: int
    batch: int
    dtype: str
    starts: npt.NDArray[np.int64] | None

    @classmethod
    def read(cls, text: str) -> Description:
        """Raises KeyError, TypeError or ValueError if the text is not a description."""
        values = parse_object(text)
        starts = None
        if values["starts"] is not None:
            starts = np.array(values["starts"])
        description = cls(
            kind=str(values["kind"]),
            length=values["length"],
            batch=values["batch"],
            dtype=values["dtype"],
            starts=starts,
        )
        description.check()
        return description

    def check(self) -> None:
        """Raises ValueError for numbers that no state has."""
        if type(self.length) is not int or not 0 <= self.length < 2**31:
            raise ValueError
        if type(self.batch) is not int or not 1 <= self.batch < 2**31:
            raise ValueError
        if self.starts is not None:
            is_list = self.starts.shape == (self.batch,) and self.starts.dtype.kind == "i"
            if not is_list or not ((self.starts >= 0) & (self.starts < self.length)).all():
                raise ValueError

    def as_json(self) -> str:
        """The text that `read` takes."""
        starts = None
        if self.starts is not None:
            starts = self.starts.tolist()
        values = {
            "kind": self.kind,
            "length": self.length,
            "batch": self.batch,
            "dtype": self.dtype,
            "starts": starts,
        }
        return json.dumps(values)


def save_state(
    ops: Backend, state: State, path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes the state, with metadata of the caller's. A crash leaves an older file intact.

    Raises MinigenError: the file cannot be written.
    """
    description = Description(state.kind, state.length, state.batch, ops.dtype, state.starts)
    with replacing(path) as temporary:
        ops.save(temporary, state.arrays(), {**(metadata or {}), KEY: description.as_json()})


def load_state(
    ops: Backend, architecture: Architecture, path: Path
) -> tuple[State, dict[str, str]]:
    """The state in a file, and the caller's metadata.

    The state has room for the tokens it has; `State.reserve` makes more.

    Raises CheckpointError: the file is damaged, not a state, or of another model or dtype.
    """
    headers, metadata = read_file(path), read_metadata(path)
    try:
        description = Description.read(metadata.pop(KEY))
        has_empty_tensors = any(0 in info.shape for info in headers.values())
        if description.batch > 1 and has_empty_tensors:  # rows of nothing could be any number
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is not a saved state") from error
    if description.dtype != ops.dtype or not has_dtype(headers, ops.dtype):
        raise CheckpointError(
            f"{path} was saved in {description.dtype} and the model runs in {ops.dtype}: "
            "load it with that dtype"
        )
    # Shapes are compared with a state of one row and one token: the file may claim any number.
    template = architecture.new_state(ops, 1, 1)
    difference = template.difference_from(description.kind)
    if difference:
        raise CheckpointError(f"{path} {difference}")
    names = {name: current_name(name) for name in headers}
    check_shapes(template, description, headers, path)
    arrays = ops.load(path)
    state = architecture.new_state(ops, description.batch, 1, description.starts)
    restored = {current: arrays[name] for name, current in names.items()}
    state.restore(restored, description.length)
    ops.sync(state.arrays())
    return state, metadata


def has_dtype(headers: Mapping[str, TensorInfo], dtype: str) -> bool:
    """Whether all tensors have this dtype, but for the codes of quantized ones."""
    for name, info in headers.items():
        is_quantized = f"{name}.scales" in headers
        expected = "U32" if is_quantized else STORED[dtype]
        if info.dtype != expected:
            return False
    return True


def check_shapes(
    template: State, description: Description, headers: Mapping[str, TensorInfo], path: Path
) -> None:
    """Raises CheckpointError unless the tensors have the shapes of this model's state."""
    expected = {}
    for name, shape in template.shapes(description.length).items():
        expected[name] = (description.batch, *shape[1:])
    stored = {current_name(name): info.shape for name, info in headers.items()}
    for name in sorted(expected.keys() | stored.keys()):
        if expected.get(name) != stored.get(name):
            raise CheckpointError(
                f"{path} is the state of another model: {name} is {stored.get(name, 'missing')} "
                f"there, this model's is {expected.get(name, 'missing')}"
            )


def current_name(name: str) -> str:
    """The present name of an array of a state."""
    layer, _, slot = name.partition(".")
    return f"{layer}.{OLD_NAMES.get(slot, slot)}"
