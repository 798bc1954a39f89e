"""The instructions of a recorded pass, each described once: the recorder makes them, the compiled loop reads them.

An instruction is a NamedTuple below. A program is a table of them (`as_program`): an array whose rows have a field
`operation` and, over the same memory, one field for each instruction, so that kernels read `program[i].linear.rows`.
The fields of a row are those of the class: a name that one side does not have is an error before anything runs.

Values are addresses, sizes and choices (int64), and a few float32. Strides are in bytes unless they say otherwise, and
an address of 0 stands for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, get_type_hints

import numpy as np
import numpy.typing as npt

Table = npt.NDArray[np.void]
NUMBER_TYPES: dict[type, str] = {int: "i8", float: "f4"}


class Storage(NamedTuple):
    """Where a matrix lies, or the keys or values of a cache, and in which form its numbers are."""

    kind: int  # one of `matrix.KINDS`, or the bits of a quantized number
    numbers: int  # address, of the packed codes where they are quantized
    scales: int = 0
    biases: int = 0
    scale_kind: int = 0  # of scales and biases, one of `matrix.KINDS`
    group: int = 1  # numbers that share a scale and a bias

    @property
    def form(self) -> tuple[int, int, int]:
        """All but the addresses."""
        return self.kind, self.scale_kind, self.group


class Linear(NamedTuple):
    """x (rows, inputs) times a matrix (outputs, inputs), plus a bias (outputs,) -> out (rows, outputs)."""

    weight: Storage
    bias: int
    x: int
    x_stride: int
    out: int
    out_stride: int
    rows: int
    outputs: int
    inputs: int


class Lookup(NamedTuple):
    """The row of a matrix (any, cols) for each token's id, or for its position -> out (tokens, cols)."""

    weight: Storage
    cols: int
    out: int
    by_position: int


class Norm(NamedTuple):
    """Each head of x (rows, heads, cols), normalized -> out (rows, heads, cols)."""

    which: int  # small.RMS_NORM or small.LAYER_NORM
    x: int
    row_stride: int
    head_stride: int
    weight: int
    bias: int
    out: int
    rows: int
    heads: int
    cols: int
    eps: float


class Rotate(NamedTuple):
    """The first 2 `half` numbers of each head of x (tokens, heads, size), turned by the angles of the token's position,
    which are in tables (positions, half) -> out (tokens, heads, size)."""

    x: int
    row_stride: int
    head_stride: int
    cos: int
    sin: int
    out: int
    heads: int
    size: int
    half: int


class Write(NamedTuple):
    """x (tokens, heads, size) into a cache (lanes, heads, tokens, size). Its strides are in tokens."""

    cache: Storage
    x: int
    row_stride: int
    head_stride: int
    cache_lane_stride: int
    cache_head_stride: int
    heads: int
    size: int


class Attend(NamedTuple):
    """q (tokens, heads, size) over the newest `window` keys and values of a cache (lanes, key_heads, tokens, size)
    -> out (tokens, heads, size). The strides of the cache are in tokens."""

    keys: Storage
    values: Storage
    q: int
    row_stride: int
    head_stride: int
    cache_lane_stride: int
    cache_head_stride: int
    out: int
    rows: int
    heads: int
    key_heads: int
    size: int
    window: int
    scale: float


class Pairwise(NamedTuple):
    """The sums or products of x and y (rows, cols) -> out (rows, cols)."""

    which: int  # small.ADD or small.MUL
    x: int
    x_stride: int
    y: int
    y_stride: int
    out: int
    rows: int
    cols: int


class ScaleShift(NamedTuple):
    """factor x + shift for x (rows, cols) -> out (rows, cols)."""

    x: int
    x_stride: int
    out: int
    rows: int
    cols: int
    factor: float
    shift: float


class Activate(NamedTuple):
    """An activation of each number of x (rows, cols) -> out (rows, cols)."""

    which: int  # small.SILU and those beside it
    x: int
    x_stride: int
    out: int
    rows: int
    cols: int


Instruction = Linear | Lookup | Norm | Rotate | Write | Attend | Pairwise | ScaleShift | Activate
LINEAR, LOOKUP, NORM, ROTATE, WRITE, ATTEND, PAIRWISE, SCALE_SHIFT, ACTIVATE = range(9)
FIELDS: dict[type, tuple[int, str]] = {
    Linear: (LINEAR, "linear"),
    Lookup: (LOOKUP, "lookup"),
    Norm: (NORM, "norm"),
    Rotate: (ROTATE, "rotate"),
    Write: (WRITE, "write"),
    Attend: (ATTEND, "attend"),
    Pairwise: (PAIRWISE, "pairwise"),
    ScaleShift: (SCALE_SHIFT, "scale_shift"),
    Activate: (ACTIVATE, "activate"),
}


class Prompt(NamedTuple):
    """Attention over a prompt, which is no instruction: q (batch, heads, queries, size) over keys and values
    (batch, key_heads, tokens, size) -> out (batch, queries, heads, size), all of one kind."""

    kind: int
    q: int
    q_batch_stride: int
    q_head_stride: int
    q_token_stride: int
    keys: int
    values: int
    cache_batch_stride: int
    cache_head_stride: int
    out: int
    batch: int
    heads: int
    key_heads: int
    queries: int
    tokens: int
    size: int
    scale: float


@cache
def record_type(description: type) -> np.dtype[np.void]:
    """The NumPy type of a record with the fields of a NamedTuple of int, float and other NamedTuples."""
    fields: list[tuple[str, Any]] = []
    for name, kind in get_type_hints(description).items():
        number = NUMBER_TYPES.get(kind)
        fields.append((name, number or record_type(kind)))
    return np.dtype(fields, align=True)


@cache
def program_type() -> np.dtype[np.void]:
    """A row of a program: the number of its operation, and all instructions over the same memory."""
    names = [name for _, name in FIELDS.values()]
    types = [record_type(description) for description in FIELDS]
    layout: Any = {
        "names": ["operation", *names],
        "formats": ["i8", *types],
        "offsets": [0, *[8] * len(types)],
    }
    row: np.dtype[np.void] = np.dtype(layout, align=True)
    return row


def as_table(record: NamedTuple) -> Table:
    """One record, for a kernel: numba's threads share arrays of records, and no single ones."""
    return np.array([record], record_type(type(record)))


def as_program(instructions: Sequence[Instruction]) -> Table:
    """The table of a program, for `program.run` and for the kernels that take a row of it."""
    row_type = program_type()
    # np.zeros of such records takes 10 microseconds, and a single product is called this way too
    memory = bytearray(len(instructions) * row_type.itemsize)
    program: Table = np.ndarray(len(instructions), row_type, buffer=memory)
    for row, instruction in zip(program, instructions, strict=True):
        operation, name = FIELDS[type(instruction)]
        row["operation"] = operation
        row[name] = instruction
    return program
