"""Keys and values in 8 or 4 bits: how new ones are packed, by the rule of `Backend.quantize`, and values are summed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from minigen.backends.cpu.dots import BITS8, load_codes, load_number, store_number
from minigen.backends.cpu.vectors import (
    FAST,
    LANES,
    add,
    compiled,
    fma,
    load,
    load_one,
    splat,
    store,
    store_byte,
    zeros,
)

SMALLEST = np.float32(1e-7)  # of a scale: a group of equal numbers has no spread to divide by


@njit(**FAST | {"fastmath": False})  # type: ignore[untyped-decorator]  # what is rounded is to be what torch rounds
def pack(cache: Any, x: int, cols: int, row: int) -> None:
    """x (cols,) float32 into a row of a cache (any, cols) of 8 or 4 bits, a record of `instructions.Storage`."""
    bits, codes, scales, biases = cache.kind, cache.numbers, cache.scales, cache.biases
    scale_kind, group = cache.scale_kind, cache.group
    most = np.float32(2**bits - 1)
    for g in range(cols // group):
        first = x + 4 * g * group
        low = high = load_one(first)
        for j in range(group):
            value = load_one(first + 4 * j)
            if value < low or value != value:  # NaN stays, and is found where the logits are
                low = value
            if value > high:
                high = value
        below = abs(low) > abs(high)
        spread = (high - low) / most
        if spread < SMALLEST:
            spread = SMALLEST
        scale, edge, bias = (
            (spread, low, np.float32(0)) if below else (-spread, high, np.float32(0))
        )
        zero = np.rint(edge / scale)
        if zero != 0:
            scale, bias = edge / zero, edge
        store_number(scales, scale_kind, row * (cols // group) + g, scale)
        store_number(biases, scale_kind, row * (cols // group) + g, bias)
        pair = 0
        for j in range(group):
            code = int(
                min(max(np.rint((load_one(first + 4 * j) - bias) / scale), np.float32(0)), most)
            )
            at = row * cols + g * group + j
            if bits == BITS8:
                store_byte(codes + at, code)
            elif j % 2:
                store_byte(codes + at // 2, pair | code << 4)
            else:
                pair = code


@compiled
def add_unpacked(values: Any, weights: int, row: int, out: int, S: int, D: int) -> None:
    """Adds to `out` (D,) the sum of S values (any, D) from `row` on by their weights (S,); a group is a multiple of 32.

    A weight is multiplied with the scale, which is one for the group; the biases are summed by themselves."""
    bits, v, scales, biases = values.kind, values.numbers, values.scales, values.biases
    scale_kind, group = values.scale_kind, values.group
    groups, size = D // group, D if bits == BITS8 else D // 2
    scaled = np.empty(S, np.float32)
    for g in range(groups):
        bias = np.float32(0)
        for s in range(S):
            weight, at = load_one(weights + 4 * s), (row + s) * groups + g
            scaled[s] = weight * load_number(scales, scale_kind, at)
            bias += weight * load_number(biases, scale_kind, at)
        for i in range(g * group, (g + 1) * group, 2 * LANES):
            a, b, c, d = splat(bias), splat(bias), zeros(), zeros()
            at = v + row * size
            for s in range(0, S - 1, 2):  # two at a time, as a sum waits for the one before
                p, r = splat(scaled[s]), splat(scaled[s + 1])
                a = fma(p, load_codes(bits, at, i), a)
                b = fma(p, load_codes(bits, at, i + LANES), b)
                c = fma(r, load_codes(bits, at + size, i), c)
                d = fma(r, load_codes(bits, at + size, i + LANES), d)
                at += 2 * size
            if S % 2:
                p = splat(scaled[S - 1])
                a, b = (
                    fma(p, load_codes(bits, at, i), a),
                    fma(p, load_codes(bits, at, i + LANES), b),
                )
            first, second = out + 4 * i, out + 4 * (i + LANES)
            store(first, add(load(first), add(a, c)))
            store(second, add(load(second), add(b, d)))
