"""The values of stored tensors without a framework, part by part, so that memory stays small."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.errors import CheckpointError
from minigen.models.stored_dtypes import NAMES, from_bytes, number_bytes
from minigen.models.tensor_info import TensorInfo

AT_ONCE = 2**20  # numbers in a part

Numbers = npt.NDArray[Any]


def parts(tensor: TensorInfo, at_once: int = AT_ONCE) -> Iterator[Numbers]:
    """All numbers of a tensor in flat arrays of `at_once` numbers; the last may be shorter.

    Its dtype must be one of NAMES. Raises CheckpointError if the file cannot be read.
    """
    size = number_bytes(tensor.dtype)
    for data in chunks(tensor, size * prod(tensor.shape), size * at_once):
        yield from_bytes(data, tensor.dtype)


def chunks(tensor: TensorInfo, size: int, at_once: int) -> Iterator[bytes]:
    """The `size` bytes of a tensor, up to `at_once` at a time.

    Raises CheckpointError if the file cannot be read, or is shorter.
    """
    try:
        with tensor.file.open("rb") as file:
            file.seek(tensor.start)
            while size:
                data = file.read(min(size, at_once))
                if not data:
                    raise CheckpointError(f"{tensor.file} is truncated: download it again")
                yield data
                size -= len(data)
    except OSError as error:
        raise CheckpointError(f"cannot read {tensor.file}: {error.strerror}") from error


def same_values(a: TensorInfo, b: TensorInfo) -> bool:
    """Whether two tensors have the same shape and numbers, whatever their dtypes.

    NaN equals NaN. Nothing is read after the first part that differs.
    """
    if a.shape != b.shape or not {a.dtype, b.dtype} <= NAMES.keys():
        return False
    return all(same_numbers(x, y) for x, y in zip_longest(parts(a), parts(b)))


def same_numbers(x: Numbers, y: Numbers) -> bool:
    """Whether two arrays are equal; NaN equals NaN."""
    if np.array_equal(x, y):
        return True
    floats = x.dtype.kind == "f" and y.dtype.kind == "f"
    return floats and np.array_equal(x, y, equal_nan=True)
