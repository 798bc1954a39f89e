"""Activations times a matrix of weights, shared among threads."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from minigen.backends.cpu.dots import matvec, prepare_row, store_number
from minigen.backends.cpu.panels import matmul_rows, unpack
from minigen.backends.cpu.vectors import claim, compiled, compiled_parts, keep_alive

BITS = np.array([32, 16, 0, 0, 4, 0, 0, 0, 8])  # of a weight, by its kind
CHUNK = 2**17  # bytes of weights that a thread takes at a time, at most
SHARES = 8  # and at least so often, so that threads end at about one time


@compiled_parts
def linear(program: Any, index: int, parts: int) -> None:
    """The instruction `Linear` of a program, shared among `parts` threads.

    Each takes the rows of the matrix that are left, a chunk at a time, so that none waits for one that is held up.
    """
    task = program[index].linear
    counter = np.zeros(8, np.int64)
    tickets = counter.ctypes.data
    if task.rows == 1:
        prepared = prepare_row(task.weight.kind, task.weight.group, task.x, task.inputs)
        prepared_at = prepared.ctypes.data
        if parts == 1:
            matvec(
                task.weight, task.bias, task.x, task.out, task.inputs, prepared_at, 0, task.outputs
            )
        else:
            share = (task.outputs + SHARES * parts - 1) // (SHARES * parts)
            chunk = max(1, min(share, CHUNK * 8 // (task.inputs * BITS[task.weight.kind])))
            for _ in prange(parts):
                matvec_chunks(program[index].linear, prepared_at, chunk, tickets)
        keep_alive(prepared)
    elif parts == 1:
        matmul_rows(task, tickets)
    else:
        for _ in prange(parts):
            matmul_rows(program[index].linear, tickets)
    keep_alive(counter)


@compiled
def matvec_chunks(task: Any, prepared: int, chunk: int, tickets: int) -> None:
    """Chunks of the product of one row, as long as the counter at `tickets` has some."""
    first = claim(tickets) * chunk
    while first < task.outputs:
        last = min(first + chunk, task.outputs)
        matvec(task.weight, task.bias, task.x, task.out, task.inputs, prepared, first, last)
        first = claim(tickets) * chunk


@compiled_parts
def unpack_parts(storages: Any, out: int, rows: int, cols: int, parts: int) -> None:
    """Quantized weights, the first of `storages`, as numbers (rows, cols) of the kind that their scales have."""
    for part in prange(parts):
        storage = storages[0]
        line = np.empty(cols, np.float32)
        for i in range(rows * part // parts, rows * (part + 1) // parts):
            unpack(storage, cols, i, 0, cols, line.ctypes.data)
            for j in range(cols):
                store_number(out, storage.scale_kind, i * cols + j, line[j])
