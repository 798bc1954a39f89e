"""The header of a GGUF file, read within bounds: the file may be from anybody.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigen.checkpoints.gguf.types import TYPES, TensorType
from minigen.errors import CheckpointError, shown

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST_TENSORS = 2**20
MOST_KEYS = 2**16
MOST_DIMENSIONS = 4
LONGEST_NAME = 2**16
ALIGNMENT = "general.alignment"
STRING, ARRAY = 8, 9
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a GGUF file. `shape` is NumPy's: the last axis is that of the rows' elements."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    start: int  # of its first byte in the file

    @property
    def bytes(self) -> int:
        return self.type.bytes_of(math.prod(self.shape))


@dataclass(frozen=True)
class Header:
    """What a file says of itself."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, StoredTensor]

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture"))


def read_header(path: Path) -> Header:
    """Raises CheckpointError for a file that cannot be read, is damaged, or has what minigen does not know."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            check_start(path, start)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return parse(path, data, size)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except (struct.error, UnicodeDecodeError, DamagedError) as error:
        reason = str(error) if isinstance(error, DamagedError) else "its header ends too early or is no text"
        raise CheckpointError(f"{path} is a damaged GGUF file ({reason}): download it again") from None


class DamagedError(Exception):
    """The header contradicts itself or the file."""


def check_start(path: Path, start: bytes) -> None:
    if start.startswith(b"version "):
        raise CheckpointError(f"{path} is a Git LFS pointer, not the weights: run git lfs pull")
    if start[:4] != MAGIC or len(start) < 8:
        raise CheckpointError(f"{path} is not a GGUF file: it does not begin with GGUF")
    version = int.from_bytes(start[4:], "little")
    if version in VERSIONS:
        return
    if int.from_bytes(start[4:], "big") in VERSIONS:
        raise CheckpointError(
            f"{path} is a big-endian GGUF file: minigen reads little-endian ones; convert it with gguf-convert-endian"
        )
    raise CheckpointError(f"{path} is of GGUF version {version}: minigen reads {', '.join(map(str, VERSIONS))}")


class Cursor:
    """Reads one value after the other."""

    def __init__(self, data: mmap.mmap, position: int) -> None:
        self.data, self.position = data, position

    def number(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self.data, self.position)
        self.position += struct.calcsize(f"<{code}")
        return value

    def bytes(self, count: int) -> bytes:
        if count > len(self.data) - self.position:
            raise DamagedError("it is cut short")
        start, self.position = self.position, self.position + count
        return self.data[start : self.position]

    def text(self) -> str:
        """Texts of tokens may be cut in the middle of a character; they are kept as they are."""
        return self.bytes(self.number("Q")).decode("utf-8", errors="surrogateescape")

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            return self.array()
        if kind not in NUMBERS:
            raise DamagedError(f"a value of the unknown kind {kind}")
        return self.number(NUMBERS[kind])

    def array(self) -> list[Any]:
        kind, count = self.number("I"), self.number("Q")
        if kind == ARRAY:
            raise DamagedError("an array of arrays")
        if count > len(self.data) - self.position:  # each element takes a byte or more
            raise DamagedError(f"an array of {count} elements")
        if kind in NUMBERS:
            code = f"<{count}{NUMBERS[kind]}"
            return list(struct.unpack(code, self.bytes(struct.calcsize(code))))
        return [self.value(kind) for _ in range(count)]


def parse(path: Path, data: mmap.mmap, size: int) -> Header:
    cursor = Cursor(data, 8)
    tensor_count, key_count = cursor.number("Q"), cursor.number("Q")
    if tensor_count > MOST_TENSORS or key_count > MOST_KEYS:
        raise DamagedError(f"{tensor_count} tensors and {key_count} keys")
    metadata: dict[str, Any] = {}
    for _ in range(key_count):
        key = short_text(cursor)
        if key in metadata:
            raise DamagedError(f"{shown(key)} is there twice")
        metadata[key] = cursor.value(cursor.number("I"))
    described = [describe(path, cursor) for _ in range(tensor_count)]
    alignment = metadata.get(ALIGNMENT, 32)
    if not isinstance(alignment, int) or not 8 <= alignment <= 2**16 or alignment % 8:
        raise DamagedError(f"an alignment of {shown(alignment)}")
    first = cursor.position + -cursor.position % alignment
    tensors: dict[str, StoredTensor] = {}
    end = 0
    for name, shape, kind, offset in sorted(described, key=lambda one: one[3]):
        tensor = StoredTensor(name, shape, kind, first + offset)
        if name in tensors:
            raise DamagedError(f"the tensor {shown(name)} is there twice")
        if offset < end or offset % alignment:
            raise DamagedError(f"the tensor {shown(name)} begins inside another one")
        end = offset + tensor.bytes
        if first + end > size:
            raise DamagedError(f"it is cut short, {size} of {first + end} bytes")
        tensors[name] = tensor
    return Header(path, metadata, tensors)


def short_text(cursor: Cursor) -> str:
    length = cursor.number("Q")
    if length > LONGEST_NAME:
        raise DamagedError(f"a name of {length} bytes")
    return cursor.bytes(length).decode("utf-8")


def describe(path: Path, cursor: Cursor) -> tuple[str, tuple[int, ...], TensorType, int]:
    """Name, shape, type and offset of a tensor. Raises CheckpointError for a type that minigen does not read."""
    name, dimensions = short_text(cursor), cursor.number("I")
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        raise DamagedError(f"the tensor {shown(name)} has {dimensions} dimensions")
    shape = tuple(cursor.number("Q") for _ in range(dimensions))[::-1]
    number, offset = cursor.number("I"), cursor.number("Q")
    if number not in TYPES:
        known = ", ".join(kind.name for kind in TYPES.values())
        raise CheckpointError(f"{path}: {shown(name)} is of the unknown block type {number}: minigen reads {known}")
    kind = TYPES[number]
    if math.prod(shape) >= 2**48 or shape[-1] % kind.elements:
        raise DamagedError(f"the tensor {shown(name)} of {kind.name} has the shape {shape}")
    return name, shape, kind, offset
