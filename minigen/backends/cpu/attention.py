"""Attention: one query over the keys of its text, as a step of few tokens needs it, and many, as a prompt does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange

from minigen.backends.cpu.dots import BITS4, BITS8, FLOAT32, number, one, prepare, put
from minigen.backends.cpu.packing import add_unpacked
from minigen.backends.cpu.panels import WIDTH
from minigen.backends.cpu.tiles import mixture
from minigen.backends.cpu.vectors import (
    LANES,
    add,
    claim,
    compiled,
    compiled_parts,
    exp,
    hold,
    load,
    load_one,
    splat,
    store,
    store_one,
    total,
)

QUERIES = 4 * WIDTH  # that are answered together
WIDE = 64  # numbers of a value that are summed at a time, in registers
mix4, mix1 = mixture(WIDTH, WIDE // LANES), mixture(WIDTH, 1)
line4, line1 = mixture(1, WIDE // LANES), mixture(1, 1)
line4_bfloat16, line1_bfloat16 = mixture(1, WIDE // LANES, 2), mixture(1, 1, 2)
mix4_bfloat16, mix1_bfloat16 = mixture(WIDTH, WIDE // LANES, 2), mixture(WIDTH, 1, 2)


@compiled
def attend_head(
    kind: int, q: int, k: int, k_scales: int, k_biases: int, v: int, v_scales: int, v_biases: int, scale_kind: int,
    group: int, row: int, out: int, S: int, D: int, scale: float,
) -> None:  # fmt: skip
    """One query (D,) over S keys and values (any, D), from `row` on."""
    padded = (S + LANES - 1) // LANES * LANES
    weights, query = np.empty(padded, np.float32), np.empty(D, np.float32)
    most, whole = np.float32(-np.inf), np.float32(0)
    for i in range(D):
        query[i] = load_one(q + 4 * i) * np.float32(scale)
    helpers = prepare(kind, query.ctypes.data, D, group)
    scores, x = weights.ctypes.data - 4 * row, query.ctypes.data
    one(kind, k, k_scales, k_biases, scale_kind, group, 0, x, scores, D, helpers.ctypes.data, row, row + S)
    hold(query)
    hold(helpers)
    for s in range(S):
        most = max(most, weights[s])
    weights[S:] = most
    for s in range(0, padded, LANES):
        at = weights.ctypes.data + 4 * s
        store(at, exp(add(load(at), splat(-most))))
    for s in range(S):
        whole += weights[s]
    for i in range(D):
        store_one(out + 4 * i, np.float32(0))
    for s in range(S):
        weights[s] /= whole
    at = weights.ctypes.data
    if kind in (BITS8, BITS4):
        add_unpacked(kind, at, v, v_scales, v_biases, scale_kind, group, row, out, S, D)
    else:
        add_mixture(kind, at, v + (4 if kind == FLOAT32 else 2) * D * row, out, S, D)
    hold(weights)


@compiled
def add_mixture(kind: int, weights: int, v: int, out: int, S: int, D: int) -> None:
    """Adds to `out` (D,) the sum of S values (S, D) by their weights (S,)."""
    for i in range(0, D // LANES * LANES, LANES):
        wide = D - i >= WIDE
        if i % WIDE and i < D // WIDE * WIDE:
            continue  # in the wide one before
        if kind == FLOAT32:
            if wide:
                line4(weights, v + 4 * i, out + 4 * i, 0, 4 * D, 0, S)
            else:
                line1(weights, v + 4 * i, out + 4 * i, 0, 4 * D, 0, S)
        elif wide:
            line4_bfloat16(weights, v + 2 * i, out + 4 * i, 0, 2 * D, 0, S)
        else:
            line1_bfloat16(weights, v + 2 * i, out + 4 * i, 0, 2 * D, 0, S)
    for i in range(D // LANES * LANES, D):
        rest = load_one(out + 4 * i)
        for s in range(S):
            rest += load_one(weights + 4 * s) * number(v, kind, D * s + i)
        store_one(out + 4 * i, rest)


@compiled_parts
def attend(
    kind: int, k: int, k_scales: int, k_biases: int, v: int, v_scales: int, v_biases: int, scale_kind: int, group: int,
    q: int, q_row: int, q_head: int, lane: int, step: int, lanes: Any, at: Any, starts: Any, window: int, out: int,
    heads: int, groups: int, D: int, scale: float, parts: int,
) -> None:  # fmt: skip
    """Row r of q (rows, heads, D) over the keys of lanes[r], from starts[r] or the last `window` on, to at[r] ->
    (rows, heads, D). The cache is as in `write`."""
    units = len(at) * heads
    for part in prange(parts):
        for unit in range(units * part // parts, units * (part + 1) // parts):
            r, h = unit // heads, unit % heads
            first = max(starts[r], at[r] + 1 - window)
            row = lanes[r] * lane + h // (heads // groups) * step + first
            attend_head(
                kind, q + r * q_row + h * q_head, k, k_scales, k_biases, v, v_scales, v_biases, scale_kind, group, row,
                out + 4 * D * unit, at[r] + 1 - first, D, scale,
            )  # fmt: skip


@compiled
def softmax(row: int, first: int, last: int, size: int) -> None:
    """Makes probabilities of the scores `first` to `last` of a row of `size` float32, and zeros of the others."""
    most, whole = np.float32(-np.inf), np.float32(0)
    for s in range(first, last):
        most = max(most, load_one(row + 4 * s))
    for s in range(first):
        store_one(row + 4 * s, np.float32(0))
    s = first
    while s + LANES <= last:
        found = exp(add(load(row + 4 * s), splat(-most)))
        store(row + 4 * s, found)
        whole += total(found)
        s += LANES
    for i in range(s, last):
        found_one = np.float32(math.exp(load_one(row + 4 * i) - most))
        store_one(row + 4 * i, found_one)
        whole += found_one
    for i in range(first, last):
        store_one(row + 4 * i, load_one(row + 4 * i) / whole)
    for i in range(last, size):
        store_one(row + 4 * i, np.float32(0))


@compiled
def attend_block(
    kind: int, q: int, q_step: int, turned: int, turned_step: int, v: int, out: int, out_step: int, n: int, seen: int,
    D: int, scale: float, query: Any, scores: Any, found: Any,
) -> None:  # fmt: skip
    """n queries (n, D) over keys `turned` (D, seen + n - 1) and values (seen + n - 1, D): query t sees the first
    seen + t."""
    S = seen + n - 1
    for t in range(n):
        for i in range(D):
            query[t, i] = number(q + t * q_step, kind, i) * np.float32(scale)
    at, base, step = scores.ctypes.data, query.ctypes.data, 4 * scores.shape[1]
    scores[:] = 0
    found[:] = 0
    for t in range(0, n, WIDTH):
        for s in range(0, S, WIDE):
            mix4(base + 4 * D * t, turned + 4 * s, at + t * step + 4 * s, 4 * D, turned_step, step, D)
    for t in range(n):
        softmax(at + t * step, 0, seen + t, S)
    for i in range(0, D, LANES):
        wide = D - i >= WIDE
        if i % WIDE and i < D // WIDE * WIDE:
            continue  # in the wide one before
        for t in range(0, n, WIDTH):
            p, to = at + t * step, found.ctypes.data + 4 * (t * D + i)
            if kind == FLOAT32:
                if wide:
                    mix4(p, v + 4 * i, to, step, 4 * D, 4 * D, S)
                else:
                    mix1(p, v + 4 * i, to, step, 4 * D, 4 * D, S)
            elif wide:
                mix4_bfloat16(p, v + 2 * i, to, step, 2 * D, 4 * D, S)
            else:
                mix1_bfloat16(p, v + 2 * i, to, step, 2 * D, 4 * D, S)
    for t in range(n):
        for i in range(D):
            put(out + t * out_step, kind, i, found[t, i])


@compiled_parts
def attend_all(
    kind: int, q: int, q_row: int, q_head: int, q_step: int, k: int, v: int, row: int, step: int, out: int, rows: int,
    heads: int, groups: int, T: int, S: int, D: int, scale: float, parts: int,
) -> None:  # fmt: skip
    """q (rows, heads, T, D) over k and v (rows, groups, S, D), the last query seeing all keys and each before it one
    less -> (rows, T, heads, D). All of one kind; D is a multiple of LANES. Steps are in bytes; those of k are D."""
    blocks, size = (T + QUERIES - 1) // QUERIES, 4 if kind == FLOAT32 else 2
    wide = (S + WIDE - 1) // WIDE * WIDE
    apart = wide + LANES  # no power of two, which would put all rows into the same lines of the cache
    turned = np.empty((rows * groups, D, apart), np.float32)
    for unit in prange(rows * groups):
        base = k + unit // groups * row + unit % groups * step
        for first in range(0, S, LANES):  # by blocks that the first cache holds
            for i in range(D):
                for s in range(first, min(first + LANES, S)):
                    turned[unit, i, s] = number(base + s * size * D, kind, i)
    counter = np.zeros(8, np.int64)
    tickets = counter.ctypes.data
    for _ in prange(parts):
        query, found = np.zeros((QUERIES, D), np.float32), np.empty((QUERIES, D), np.float32)
        scores = np.zeros((QUERIES, wide), np.float32)
        unit = claim(tickets)
        while unit < rows * heads * blocks:
            b, h = unit // blocks // heads, unit // blocks % heads
            first = (blocks - 1 - unit % blocks) * QUERIES  # the longest first, so that the threads end together
            n, g = min(QUERIES, T - first), h // (heads // groups)
            attend_block(
                kind, q + b * q_row + h * q_head + first * q_step, q_step,
                turned.ctypes.data + 4 * (b * groups + g) * D * apart, 4 * apart, v + b * row + g * step,
                out + size * D * ((b * T + first) * heads + h), size * D * heads, n, S - T + first + 1, D, scale,
                query, scores, found,
            )  # fmt: skip
            unit = claim(tickets)
    hold(counter)
