"""A recorded step as a table of instructions, and the function that runs it: one call for a whole step.

An instruction is a row of int64, its number first and last the rows that it is for (see `run` for what is between),
with two float32 beside it.
"""

from __future__ import annotations

from typing import Any

from minigen.backends.cpu.attention import attend
from minigen.backends.cpu.linear import linear
from minigen.backends.cpu.small import activate, lookup, norm, pairwise, rotate, scaled, write
from minigen.backends.cpu.vectors import compiled

LINEAR, LOOKUP, NORM, ROTATE, WRITE, ATTEND, PAIRWISE, SCALED, ACTIVATE = range(9)
FIELDS = 24  # int64 an instruction
SHARED = 2**17  # bytes, or products, that are worth a second thread


@compiled
def run(code: Any, reals: Any, ids: Any, positions: Any, starts: Any, lanes: Any, at: Any, threads: int) -> None:
    """Runs the instructions `code` (n, FIELDS) with `reals` (n, 2), for new tokens that have an id, a position in their
    text, and a place in the cache: token at[r] of lanes[r], whose text begins at starts[r] (all int64, a row each)."""
    for i in range(len(code)):
        c, f = code[i], reals[i]
        n = c[FIELDS - 1]
        if c[0] == LINEAR:
            size = c[12] * c[13] * (4 if c[1] == 0 else 2 if c[1] == 1 else 1)
            parts = threads if size * n >= SHARED else 1
            linear(c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], c[9], c[10], c[11], n, c[12], c[13], parts)
        elif c[0] == LOOKUP:
            lookup(c[1], c[2], c[3], c[4], c[5], c[6], c[7], positions if c[9] else ids, c[8])
        elif c[0] == NORM:
            norm(c[1], c[2], c[3], c[4], c[5], c[6], c[7], n, c[8], c[9], f[0])
        elif c[0] == ROTATE:
            rotate(c[1], c[2], c[3], c[4], c[5], c[6], positions, c[7], c[8], c[9])
        elif c[0] == WRITE:
            write(c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], c[9], c[10], c[11], lanes, at, c[12], c[13])
        elif c[0] == ATTEND:
            work = n * c[16] * c[18] * (at.max() + 1)
            parts = threads if work >= SHARED else 1
            attend(
                c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], c[9], c[10], c[11], c[12], c[13], c[14], lanes, at,
                starts, c[19], c[15], c[16], c[17], c[18], f[0], parts,
            )  # fmt: skip
        elif c[0] == PAIRWISE:
            pairwise(c[1], c[2], c[3], c[4], c[5], c[6], n, c[7])
        elif c[0] == SCALED:
            scaled(c[1], c[2], c[3], n, c[4], f[0], f[1])
        elif c[0] == ACTIVATE:
            activate(c[1], c[2], c[3], c[4], n, c[5])
