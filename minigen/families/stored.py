"""The values of stored tensors before a framework is involved: part by part, so that a large one is never in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import zip_longest
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.errors import CheckpointError
from minigen.models.tensor_info import TensorInfo

AT_ONCE = 2**20  # numbers of a part

Numbers = npt.NDArray[Any]


def plain(dtype: str) -> Callable[[bytes], Numbers]:
    return lambda data: np.frombuffer(data, dtype)


def from_bfloat16(data: bytes) -> Numbers:
    """NumPy has no such type; its bits are the upper half of a float32's."""
    return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)


# safetensors' names of dtypes -> the bytes of a number, and how to read them. A tensor of another is no copy.
READERS: dict[str, tuple[int, Callable[[bytes], Numbers]]] = {
    "F64": (8, plain("<f8")),
    "F32": (4, plain("<f4")),
    "F16": (2, plain("<f2")),
    "BF16": (2, from_bfloat16),
    "I64": (8, plain("<i8")),
    "I32": (4, plain("<i4")),
    "U32": (4, plain("<u4")),
    "I8": (1, plain("i1")),
    "U8": (1, plain("u1")),
    "BOOL": (1, plain("?")),
}


def parts(tensor: TensorInfo, at_once: int = AT_ONCE) -> Iterator[Numbers]:
    """All numbers of a tensor whose dtype is one of READERS, flat, `at_once` in each part but the last.

    Raises CheckpointError where the file cannot be read.
    """
    size, read = READERS[tensor.dtype]
    for data in pieces(tensor, size * prod(tensor.shape), size * at_once):
        yield read(data)


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
    if a.shape != b.shape or not {a.dtype, b.dtype} <= READERS.keys():
        return False
    return all(alike(x, y) for x, y in zip_longest(parts(a), parts(b)))


def alike(x: Numbers, y: Numbers) -> bool:
    return np.array_equal(x, y) or (x.dtype.kind == y.dtype.kind == "f" and np.array_equal(x, y, equal_nan=True))
