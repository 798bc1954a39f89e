"""The dtypes of stored tensors: what safetensors calls them, and what NumPy and this program do."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from minigen.backends.base import DTYPES, NUMBER_BYTES

NAMES = {  # of safetensors -> NumPy's, and "bfloat16", which NumPy has not
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
STORED = {name: stored for stored, name in NAMES.items()}
FLOATS = tuple(stored for stored, name in NAMES.items() if name in DTYPES)  # what models compute in


def number_bytes(stored: str) -> int:
    """The bytes of a number of a stored dtype, one of NAMES."""
    name = NAMES[stored]
    if name in NUMBER_BYTES:
        return NUMBER_BYTES[name]
    return np.dtype(name).itemsize


def from_bytes(data: bytes, stored: str) -> npt.NDArray[np.generic]:
    """The numbers of a stored dtype, flat; bfloat16 becomes float32, whose upper half it is."""
    if NAMES[stored] == "bfloat16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, np.dtype(NAMES[stored]).newbyteorder("<"))
