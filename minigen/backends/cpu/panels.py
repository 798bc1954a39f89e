"""Several rows of activations times a matrix: the arithmetic counts. Weights are unpacked, a panel that the cache holds
at a time, and multiplied in tiles that live in registers (Goto and van de Geijn 2008)."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.backends.cpu.dots import BFLOAT16, FLOAT32, load_codes, load_number
from minigen.backends.cpu.tiles import tile
from minigen.backends.cpu.vectors import (
    LANES,
    claim,
    compiled,
    fma,
    load_one,
    load_one_bfloat16,
    splat,
    store,
    store_one,
)

PANEL_ROWS, PANEL_COLS = 64, 1024  # of weights: with float32 a quarter of a megabyte
SPACE_COLS = (
    PANEL_COLS + LANES
)  # no power of two, which would put all rows into the same lines of the cache
HEIGHT, WIDTH = 4, 6
FEW = 16  # rows of activations
tile1, tile2, tile4, tile6 = (tile(HEIGHT, width, 4) for width in (1, 2, 4, WIDTH))
narrow1, narrow2, narrow4, narrow6 = (tile(HEIGHT, width, 2) for width in (1, 2, 4, WIDTH))


@compiled
def unpack(storage: Any, cols: int, row: int, first: int, last: int, out: int) -> None:
    """Columns `first` to `last` of a row of a matrix (any, cols) as float32 at `out`; quantized ones by whole groups.

    `storage` is a record of `instructions.Storage`.
    """
    kind, numbers, scales, biases = storage.kind, storage.numbers, storage.scales, storage.biases
    scale_kind, group = storage.scale_kind, storage.group
    at = row * cols + first
    if kind == FLOAT32:
        for j in range(last - first):
            store_one(out + 4 * j, load_one(numbers + 4 * (at + j)))
    elif kind == BFLOAT16:
        for j in range(last - first):
            store_one(out + 4 * j, load_one_bfloat16(numbers + 2 * (at + j)))
    else:
        first_group = at // group
        for g in range((last - first) // group):
            scale = splat(load_number(scales, scale_kind, first_group + g))
            bias = splat(load_number(biases, scale_kind, first_group + g))
            for j in range(g * group, (g + 1) * group, LANES):
                store(out + 4 * j, fma(scale, load_codes(kind, numbers, at + j), bias))


@compiled
def multiply_panel(
    kind: int, w: int, w_step: int, x: int, x_step: int, y: int, y_step: int, n: int, rows: int, cols: int, bias: int,
    more: bool,
) -> None:  # fmt: skip
    """The product of x (n, cols) with w (rows, cols), which is float32 or bfloat16, and a bias or 0, to y (n, rows); or
    added to what is there, with `more`. cols is a multiple of LANES, and w can be read up to a multiple of HEIGHT."""
    found = np.empty((WIDTH, HEIGHT), np.float32)
    at = found.ctypes.data
    j = 0
    while j < n:
        left_over = n - j
        if left_over >= WIDTH:
            width = WIDTH
        elif left_over >= 4:
            width = 4
        elif left_over >= 2:
            width = 2
        else:
            width = 1
        right = x + j * x_step
        for i in range(0, rows, HEIGHT):
            left = w + i * w_step
            if kind == BFLOAT16:
                if width == WIDTH:
                    narrow6(left, right, at, w_step, x_step, 4 * HEIGHT, cols)
                elif width == 4:
                    narrow4(left, right, at, w_step, x_step, 4 * HEIGHT, cols)
                elif width == 2:
                    narrow2(left, right, at, w_step, x_step, 4 * HEIGHT, cols)
                else:
                    narrow1(left, right, at, w_step, x_step, 4 * HEIGHT, cols)
            elif width == WIDTH:
                tile6(left, right, at, w_step, x_step, 4 * HEIGHT, cols)
            elif width == 4:
                tile4(left, right, at, w_step, x_step, 4 * HEIGHT, cols)
            elif width == 2:
                tile2(left, right, at, w_step, x_step, 4 * HEIGHT, cols)
            else:
                tile1(left, right, at, w_step, x_step, 4 * HEIGHT, cols)
            for a in range(min(HEIGHT, rows - i)):
                plus = load_one(bias + 4 * (i + a)) if bias else np.float32(0)
                for b in range(width):
                    to = y + (j + b) * y_step + 4 * (i + a)
                    store_one(to, found[b, a] + (load_one(to) if more else plus))
        j += width


@compiled
def matmul_rows(task: Any, tickets: int) -> None:
    """Panels of the product of several rows, as long as the counter at `tickets` has some.

    `task` is a record of `instructions.Linear`.
    """
    storage, rows, cols = task.weight, task.outputs, task.inputs
    kind, numbers, bias = storage.kind, storage.numbers, task.bias
    x, x_stride, n = task.x, task.x_stride, task.rows
    out, out_stride = task.out, task.out_stride
    most = (
        PANEL_ROWS if n > FEW else HEIGHT
    )  # for few rows what is unpacked stays in the first cache
    space = np.empty((most, SPACE_COLS), np.float32)
    padded = np.zeros((n, SPACE_COLS), np.float32) if cols % LANES else np.empty((1, 1), np.float32)
    chunks = (cols + PANEL_COLS - 1) // PANEL_COLS
    step = ((cols + chunks - 1) // chunks + 127) // 128 * 128  # whole groups
    size = 2 if kind == BFLOAT16 else 4
    first = claim(tickets) * PANEL_ROWS
    while first < rows:
        for top in range(first, min(first + PANEL_ROWS, rows), most):
            height = min(most, rows - top)
            for left_col in range(0, cols, step):
                right_col = min(left_col + step, cols)
                width = right_col - left_col
                padded_width = (width + LANES - 1) // LANES * LANES
                whole = padded_width == width
                right, right_stride = x + 4 * left_col, x_stride
                if not whole:
                    for j in range(n):
                        for i in range(left_col, right_col):
                            padded[j, i - left_col] = load_one(x + j * x_stride + 4 * i)
                        padded[j, width:padded_width] = 0
                    right, right_stride = padded.ctypes.data, 4 * SPACE_COLS
                if whole and height % HEIGHT == 0 and kind in (FLOAT32, BFLOAT16):
                    left = numbers + size * (top * cols + left_col)
                    left_stride, left_kind = size * cols, kind
                else:
                    for i in range(height):
                        space[i, width:padded_width] = 0
                        line = space.ctypes.data + 4 * SPACE_COLS * i
                        unpack(storage, cols, top + i, left_col, right_col, line)
                    left, left_stride, left_kind = space.ctypes.data, 4 * SPACE_COLS, FLOAT32
                multiply_panel(
                    left_kind, left, left_stride, right, right_stride, out + 4 * top, out_stride,
                    n, height, padded_width, bias + 4 * top if bias else 0, left_col > 0,
                )  # fmt: skip
        first = claim(tickets) * PANEL_ROWS
