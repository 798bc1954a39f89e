"""What a step does between its matrices: norms, rotations, the cache, attention, activations. All is float32 but for
the cache, which has the model's dtype. Steps are bytes from row to row, or from head to head."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange

from minigen.backends.cpu.dots import BFLOAT16, FLOAT32
from minigen.backends.cpu.packing import pack
from minigen.backends.cpu.panels import unpack
from minigen.backends.cpu.vectors import (
    LANES,
    add,
    compiled,
    compiled_parts,
    div,
    exp,
    fma,
    load,
    load_one,
    mul,
    splat,
    store,
    store_one,
    store_one_bfloat16,
)

ADD, MUL = 0, 1
RMS_NORM, LAYER_NORM = 0, 1
SILU, GELU_TANH, GELU, RELU, SIGMOID, TANH = range(6)


@compiled
def lookup(task: Any, indices: Any) -> None:
    """The rows of a matrix that the indices name; `task` is a record of `instructions.Lookup`."""
    cols = task.cols
    for r in range(len(indices)):
        unpack(task.weight, cols, indices[r], 0, cols, task.out + 4 * cols * r)


@compiled
def norm(
    which: int, x: int, x_row: int, x_head: int, weight: int, bias: int, out: int, n: int, heads: int, cols: int,
    eps: float,
) -> None:  # fmt: skip
    """Each head of n rows over the root of its mean square, or that of its distance from its mean; a bias may be 0."""
    for unit in range(n * heads):
        source, to = x + unit // heads * x_row + unit % heads * x_head, out + 4 * cols * unit
        mean, squares = np.float32(0), np.float32(0)
        if which == LAYER_NORM:
            for j in range(cols):
                mean += load_one(source + 4 * j)
            mean /= np.float32(cols)
        for j in range(cols):
            squares += (load_one(source + 4 * j) - mean) ** 2
        factor = np.float32(1 / math.sqrt(squares / cols + eps))
        for j in range(cols):
            value = (load_one(source + 4 * j) - mean) * factor * load_one(weight + 4 * j)
            store_one(to + 4 * j, value + load_one(bias + 4 * j) if bias else value)


@compiled
def rotate(
    x: int,
    x_row: int,
    x_head: int,
    cos: int,
    sin: int,
    out: int,
    positions: Any,
    heads: int,
    D: int,
    half: int,
) -> None:
    """The first 2 half dimensions of each head, i together with i + half, by the angles of the row's position in the
    tables (positions, half) -> (rows, heads, D)."""
    for r in range(len(positions)):
        c, s = cos + 4 * half * positions[r], sin + 4 * half * positions[r]
        for h in range(heads):
            source, to = x + r * x_row + h * x_head, out + 4 * D * (r * heads + h)
            for i in range(half):
                a, b = load_one(source + 4 * i), load_one(source + 4 * (i + half))
                store_one(to + 4 * i, a * load_one(c + 4 * i) - b * load_one(s + 4 * i))
                store_one(to + 4 * (i + half), b * load_one(c + 4 * i) + a * load_one(s + 4 * i))
            for i in range(2 * half, D):
                store_one(to + 4 * i, load_one(source + 4 * i))


@compiled
def write(task: Any, lanes: Any, at: Any) -> None:
    """Row r of x into the cache, at token at[r] of lanes[r]; `task` is a record of `instructions.Write`."""
    cache, size = task.cache, task.size
    kind, numbers = cache.kind, cache.numbers
    for r in range(len(at)):
        for h in range(task.heads):
            source = task.x + r * task.row_stride + h * task.head_stride
            row = lanes[r] * task.cache_lane_stride + h * task.cache_head_stride + at[r]
            if kind == FLOAT32:
                for i in range(size):
                    store_one(numbers + 4 * (size * row + i), load_one(source + 4 * i))
            elif kind == BFLOAT16:
                for i in range(size):
                    store_one_bfloat16(numbers + 2 * (size * row + i), load_one(source + 4 * i))
            else:
                pack(cache, source, size, row)


@compiled
def pairwise(
    which: int, x: int, x_step: int, y: int, y_step: int, out: int, n: int, cols: int
) -> None:
    """The sums or products of two (n, cols)."""
    for r in range(n):
        a, b, to = x + r * x_step, y + r * y_step, out + 4 * cols * r
        for j in range(cols):
            left, right = load_one(a + 4 * j), load_one(b + 4 * j)
            store_one(to + 4 * j, left + right if which == ADD else left * right)


@compiled
def scale_shift(
    x: int, x_step: int, out: int, n: int, cols: int, factor: float, shift: float
) -> None:
    """factor x + shift for each number of (n, cols)."""
    for r in range(n):
        for j in range(cols):
            value = load_one(x + r * x_step + 4 * j) * np.float32(factor) + np.float32(shift)
            store_one(out + 4 * (cols * r + j), value)


@compiled
def sigmoid(x: Any) -> Any:
    """Of a vector."""
    one = splat(np.float32(1))
    return div(one, add(one, exp(mul(x, splat(np.float32(-1))))))


@compiled
def activate_one(which: int, x: Any) -> Any:
    if which == RELU:
        return np.float32(0) if x < 0 else x
    if which == GELU:
        return np.float32(0.5) * x * np.float32(1 + math.erf(x * np.float32(math.sqrt(0.5))))
    if which == GELU_TANH:
        return x / (1 + np.float32(math.exp(-TWICE * (x + CUBIC * x * x * x))))
    if which == TANH:
        return np.float32(math.tanh(x))
    if which == SIGMOID:
        return 1 / (1 + np.float32(math.exp(-x)))
    return x / (1 + np.float32(math.exp(-x)))


# tanh(u) = 2 sigmoid(2u) - 1, so GELU's (1 + tanh(u)) / 2 is sigmoid(2u), without the cancellation
TWICE, CUBIC = np.float32(2 * math.sqrt(2 / math.pi)), np.float32(0.044715)


@compiled
def activate(which: int, x: int, x_step: int, out: int, n: int, cols: int) -> None:
    """An activation of each number of (n, cols)."""
    many = cols // LANES * LANES if which in (SILU, GELU_TANH) else 0
    for r in range(n):
        for j in range(0, many, LANES):
            value, to = load(x + r * x_step + 4 * j), out + 4 * (cols * r + j)
            if which == SILU:
                store(to, mul(value, sigmoid(value)))
            else:
                inner = fma(mul(splat(CUBIC), mul(value, value)), value, value)
                store(to, mul(value, sigmoid(mul(splat(TWICE), inner))))
        for j in range(many, cols):
            store_one(
                out + 4 * (cols * r + j), activate_one(which, load_one(x + r * x_step + 4 * j))
            )


# -- for many rows, shared among threads ------------------------------------------------------------------------------
@compiled_parts
def activate_parts(
    which: int, x: int, x_step: int, out: int, n: int, cols: int, parts: int
) -> None:
    for part in prange(parts):
        low, high = n * part // parts, n * (part + 1) // parts
        activate(which, x + x_step * low, x_step, out + 4 * cols * low, high - low, cols)


@compiled_parts
def norm_parts(
    which: int, x: int, weight: int, bias: int, out: int, n: int, cols: int, eps: float, parts: int
) -> None:
    """Rows that lie side by side."""
    for part in prange(parts):
        low, high = n * part // parts, n * (part + 1) // parts
        at = 4 * cols * low
        norm(which, x + at, 4 * cols, 0, weight, bias, out + at, high - low, 1, cols, eps)


@compiled_parts
def rotate_parts(
    x: int,
    x_row: int,
    x_head: int,
    cos: int,
    sin: int,
    out: int,
    n: int,
    heads: int,
    D: int,
    half: int,
    parts: int,
) -> None:
    """n rows, each by its own row of the tables."""
    positions = np.arange(n)
    for part in prange(parts):
        low, high = n * part // parts, n * (part + 1) // parts
        rotate(
            x + x_row * low,
            x_row,
            x_head,
            cos,
            sin,
            out + 4 * heads * D * low,
            positions[low:high],
            heads,
            D,
            half,
        )
