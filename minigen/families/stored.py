"""The values of stored tensors before a framework is involved: part by part, so that a large one is never in memory."""

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

AT_ONCE = 2**20  # numbers of a part

Numbers = npt.NDArray[Any]


def parts(tensor: TensorInfo, at_once: int = AT_ONCE) -> Iterator[Numbers]:
    """All numbers of a tensor whose dtype is one of NAMES, flat, `at_once` in each part but the last.

    Raises CheckpointError where the file cannot be read.
    """
    size = number_bytes(tensor.dtype)
    for data in pieces(tensor, size * prod(tensor.shape), size * at_once):
        yield from_bytes(data, tensor.dtype)


def pieces(tensor: TensorInfo, size: int, at_once: int) -> Iterator[bytes]:
    """The `size` bytes of a tensor. Raises CheckpointError where the file cannot be read, or has fewer."""
    try:
        with tensor.file.open("rb") as file:
            file.seek(tensor.start)
            while size:
                data = file.read(min(size, at_once))
                if not data:
                    raise CheckpointError(f"{tensor.file} is cut short: download it again")
                yield data
                size -= len(data)
    except OSError as error:
        raise CheckpointError(f"cannot read {tensor.file}: {error.strerror}") from error


def same_values(a: TensorInfo, b: TensorInfo) -> bool:
    """Whether two tensors have one shape and the same numbers, in whatever dtype each is; NaN is like NaN.

    Reads no further than the first part that differs.
    """
    if a.shape != b.shape or not {a.dtype, b.dtype} <= NAMES.keys():
        return False
    return all(alike(x, y) for x, y in zip_longest(parts(a), parts(b)))


def alike(x: Numbers, y: Numbers) -> bool:
    return np.array_equal(x, y) or (x.dtype.kind == y.dtype.kind == "f" and np.array_equal(x, y, equal_nan=True))
