"""Runs a recorded pass: one call for all its instructions.

`instructions.py` says what the instructions are. Each branch hands the fields that it reads to the kernel by name.
"""

from __future__ import annotations

from typing import Any

from minigen.backends.cpu.attention import attend
from minigen.backends.cpu.dots import BFLOAT16, FLOAT32
from minigen.backends.cpu.instructions import (
    ACTIVATE,
    ATTEND,
    LINEAR,
    LOOKUP,
    NORM,
    PAIRWISE,
    ROTATE,
    SCALE_SHIFT,
    WRITE,
)
from minigen.backends.cpu.linear import linear
from minigen.backends.cpu.small import (
    activate,
    lookup,
    norm,
    pairwise,
    rotate,
    scale_shift,
    write,
)
from minigen.backends.cpu.vectors import compiled

SHARED = 2**17  # bytes, or products, that are worth a second thread


@compiled
def run(
    program: Any, ids: Any, positions: Any, starts: Any, lanes: Any, at: Any, threads: int
) -> None:
    """Runs a program (`instructions.as_program`) for new tokens that have an id, a position in their text, and a place
    in the cache: token at[r] of lanes[r], whose text begins at starts[r] (all int64, one for each token)."""
    for index in range(len(program)):
        row = program[index]
        operation = row.operation
        if operation == LINEAR:
            work = bytes_of(row.linear) * row.linear.rows
            linear(program, index, threads if work >= SHARED else 1)
        elif operation == LOOKUP:
            lookup(row.lookup, positions if row.lookup.by_position else ids)
        elif operation == NORM:
            n = row.norm
            norm(
                n.which, n.x, n.row_stride, n.head_stride, n.weight, n.bias, n.out,
                n.rows, n.heads, n.cols, n.eps,
            )  # fmt: skip
        elif operation == ROTATE:
            r = row.rotate
            rotate(
                r.x, r.row_stride, r.head_stride, r.cos, r.sin, r.out, positions,
                r.heads, r.size, r.half,
            )  # fmt: skip
        elif operation == WRITE:
            write(row.write, lanes, at)
        elif operation == ATTEND:
            work = row.attend.rows * row.attend.heads * row.attend.size * (at.max() + 1)
            attend(program, index, lanes, at, starts, threads if work >= SHARED else 1)
        elif operation == PAIRWISE:
            p = row.pairwise
            pairwise(p.which, p.x, p.x_stride, p.y, p.y_stride, p.out, p.rows, p.cols)
        elif operation == SCALE_SHIFT:
            s = row.scale_shift
            scale_shift(s.x, s.x_stride, s.out, s.rows, s.cols, s.factor, s.shift)
        elif operation == ACTIVATE:
            a = row.activate
            activate(a.which, a.x, a.x_stride, a.out, a.rows, a.cols)


@compiled
def bytes_of(task: Any) -> Any:
    """About how many bytes the matrix of a product has; 4 bits are counted as 8."""
    numbers = task.outputs * task.inputs
    if task.weight.kind == FLOAT32:
        return 4 * numbers
    if task.weight.kind == BFLOAT16:
        return 2 * numbers
    return numbers
