"""Several rows of activations times a matrix: the arithmetic counts. Weights are unpacked, a panel that the cache holds
at a time, and multiplied in tiles that live in registers (Goto and van de Geijn 2008)."""

from __future__ import annotations

import numpy as np

from minigen.backends.cpu.dots import BFLOAT16, BITS8, FLOAT32, number
from minigen.backends.cpu.tiles import tile
from minigen.backends.cpu.vectors import (
    LANES,
    claim,
    compiled,
    floats,
    fma,
    load_bytes,
    load_nibbles,
    load_one,
    load_one_bfloat16,
    splat,
    store,
    store_one,
)

PANEL_ROWS, PANEL_COLS = 64, 1024  # of weights: with float32 a quarter of a megabyte
SPACE_COLS = PANEL_COLS + LANES  # no power of two, which would put all rows into the same lines of the cache
HEIGHT, WIDTH = 4, 6
FEW = 16  # rows of activations
tile1, tile2, tile4, tile6 = (tile(HEIGHT, width, 4) for width in (1, 2, 4, WIDTH))
narrow1, narrow2, narrow4, narrow6 = (tile(HEIGHT, width, 2) for width in (1, 2, 4, WIDTH))


@compiled
def unpack(
    kind: int, w: int, scales: int, biases: int, scale_kind: int, group: int, cols: int, i: int, from_: int, to: int,
    out: int,
) -> None:  # fmt: skip
    """Columns from_ to `to` of row i of the weights as float32 at `out`; quantized ones by whole groups."""
    at = i * cols + from_
    if kind == FLOAT32:
        for j in range(to - from_):
            store_one(out + 4 * j, load_one(w + 4 * (at + j)))
    elif kind == BFLOAT16:
        for j in range(to - from_):
            store_one(out + 4 * j, load_one_bfloat16(w + 2 * (at + j)))
    else:
        first = at // group
        for g in range((to - from_) // group):
            scale = splat(number(scales, scale_kind, first + g))
            bias = splat(number(biases, scale_kind, first + g))
            for j in range(g * group, (g + 1) * group, LANES):
                codes = load_bytes(w + at + j) if kind == BITS8 else load_nibbles(w + (at + j) // 2)
                store(out + 4 * j, fma(scale, floats(codes), bias))


@compiled
def panel(
    kind: int, w: int, w_step: int, x: int, x_step: int, y: int, y_step: int, n: int, rows: int, cols: int, bias: int,
    more: bool,
) -> None:  # fmt: skip
    """The product of x (n, cols) with w (rows, cols), which is float32 or bfloat16, and a bias or 0, to y (n, rows); or
    added to what is there, with `more`. cols is a multiple of LANES, and w can be read up to a multiple of HEIGHT."""
    found = np.empty((WIDTH, HEIGHT), np.float32)
    at = found.ctypes.data
    j = 0
    while j < n:
        width = WIDTH if n - j >= WIDTH else 4 if n - j >= 4 else 2 if n - j >= 2 else 1
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
def several(
    kind: int, w: int, scales: int, biases: int, scale_kind: int, group: int, bias: int, x: int, x_step: int, y: int,
    y_step: int, n: int, rows: int, cols: int, counter: int,
) -> None:  # fmt: skip
    """n rows of activations times weights (rows, cols), of which it takes panels as long as the counter has some."""
    most = PANEL_ROWS if n > FEW else HEIGHT  # for few rows what is unpacked stays in the first cache
    space = np.empty((most, SPACE_COLS), np.float32)
    given = np.zeros((n, SPACE_COLS), np.float32) if cols % LANES else np.empty((1, 1), np.float32)
    chunks = (cols + PANEL_COLS - 1) // PANEL_COLS
    step = ((cols + chunks - 1) // chunks + 127) // 128 * 128  # whole groups
    size = 2 if kind == BFLOAT16 else 4
    first = claim(counter) * PANEL_ROWS
    while first < rows:
        for top in range(first, min(first + PANEL_ROWS, rows), most):
            high = min(most, rows - top)
            for from_ in range(0, cols, step):
                to = min(from_ + step, cols)
                wide = (to - from_ + LANES - 1) // LANES * LANES
                whole = wide == to - from_
                right, right_step = x + 4 * from_, x_step
                if not whole:
                    for j in range(n):
                        for i in range(from_, to):
                            given[j, i - from_] = load_one(x + j * x_step + 4 * i)
                        given[j, to - from_ : wide] = 0
                    right, right_step = given.ctypes.data, 4 * SPACE_COLS
                if whole and high % HEIGHT == 0 and kind in (FLOAT32, BFLOAT16):
                    left, left_step, left_kind = w + size * (top * cols + from_), size * cols, kind
                else:
                    for i in range(high):
                        space[i, to - from_ : wide] = 0
                        out = space.ctypes.data + 4 * SPACE_COLS * i
                        unpack(kind, w, scales, biases, scale_kind, group, cols, top + i, from_, to, out)
                    left, left_step, left_kind = space.ctypes.data, 4 * SPACE_COLS, FLOAT32
                plus = bias + 4 * top if bias else 0
                out, more = y + 4 * top, from_ > 0
                panel(left_kind, left, left_step, right, right_step, out, y_step, n, high, wide, plus, more)
        first = claim(counter) * PANEL_ROWS
