"""Activations times a matrix of weights, shared among threads."""

from __future__ import annotations

import numpy as np
from numba import prange

from minigen.backends.cpu.dots import one, prepare, put
from minigen.backends.cpu.panels import several, unpack
from minigen.backends.cpu.vectors import claim, compiled_parts, hold

BITS = np.array([32, 16, 0, 0, 4, 0, 0, 0, 8])  # of a weight, by its kind
CHUNK = 2**17  # bytes of weights that a thread takes at a time, at most
SHARES = 8  # and at least so often, so that threads end at about one time


@compiled_parts
def linear(
    kind: int, w: int, scales: int, biases: int, scale_kind: int, group: int, bias: int, x: int, x_step: int, y: int,
    y_step: int, n: int, rows: int, cols: int, parts: int,
) -> None:  # fmt: skip
    """x (n, cols) -> y (n, rows) by w (rows, cols), shared among so many threads.

    x, y and the bias (rows,) are float32; a bias at address 0 is none. Scales and biases of quantized weights are
    (rows, cols / group) of `scale_kind`; for others `group` is 1. Steps are bytes from row to row.
    """
    counter = np.zeros(8, np.int64)  # threads take what is left, so that none waits for one that is held up
    tickets = counter.ctypes.data
    if n == 1:
        helpers, share = prepare(kind, x, cols, group), (rows + SHARES * parts - 1) // (SHARES * parts)
        chunk = max(1, min(share, CHUNK * 8 // (cols * BITS[kind])))
        given = helpers.ctypes.data
        if parts == 1:
            one(kind, w, scales, biases, scale_kind, group, bias, x, y, cols, given, 0, rows)
        else:
            for _ in prange(parts):
                first = claim(tickets) * chunk
                while first < rows:
                    last = min(first + chunk, rows)
                    one(kind, w, scales, biases, scale_kind, group, bias, x, y, cols, given, first, last)
                    first = claim(tickets) * chunk
        hold(helpers)
    elif parts == 1:
        several(kind, w, scales, biases, scale_kind, group, bias, x, x_step, y, y_step, n, rows, cols, tickets)
    else:
        for _ in prange(parts):
            several(kind, w, scales, biases, scale_kind, group, bias, x, x_step, y, y_step, n, rows, cols, tickets)
    hold(counter)


@compiled_parts
def unpack_parts(
    kind: int, w: int, scales: int, biases: int, scale_kind: int, group: int, out: int, rows: int, cols: int, parts: int
) -> None:
    """Quantized weights as numbers (rows, cols) of the kind that their scales have."""
    for part in prange(parts):
        line = np.empty(cols, np.float32)
        for i in range(rows * part // parts, rows * (part + 1) // parts):
            unpack(kind, w, scales, biases, scale_kind, group, cols, i, 0, cols, line.ctypes.data)
            for j in range(cols):
                put(out, scale_kind, i * cols + j, line[j])
