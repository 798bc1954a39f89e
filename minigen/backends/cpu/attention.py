"""Attention: one query over the keys of its text, as a step of few tokens needs it, and many, as a prompt does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange

from minigen.backends.cpu.dots import (
    BITS4,
    BITS8,
    FLOAT32,
    load_number,
    matvec,
    prepare_row,
    store_number,
)
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
    keep_alive,
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
def attend_head(task: Any, q: int, first_row: int, out: int, S: int) -> None:
    """One query (size,) over S keys and values (any, size), from `first_row` on -> `out` (size,).

    `task` is a record of `instructions.Attend`.
    """
    keys, values, D, scale = task.keys, task.values, task.size, np.float32(task.scale)
    kind = keys.kind
    padded = (S + LANES - 1) // LANES * LANES
    weights, query = np.empty(padded, np.float32), np.empty(D, np.float32)
    most, whole = np.float32(-np.inf), np.float32(0)
    for i in range(D):
        query[i] = load_one(q + 4 * i) * scale
    prepared = prepare_row(kind, keys.group, query.ctypes.data, D)
    scores = weights.ctypes.data - 4 * first_row  # the score of the key in row r lies at 4 r
    matvec(keys, 0, query.ctypes.data, scores, D, prepared.ctypes.data, first_row, first_row + S)
    keep_alive(query)
    keep_alive(prepared)
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
        add_unpacked(values, at, first_row, out, S, D)
    else:
        number_size = 4 if kind == FLOAT32 else 2
        add_mixture(kind, at, values.numbers + number_size * D * first_row, out, S, D)
    keep_alive(weights)


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
            rest += load_one(weights + 4 * s) * load_number(v, kind, D * s + i)
        store_one(out + 4 * i, rest)


@compiled_parts
def attend(program: Any, index: int, lanes: Any, at: Any, starts: Any, parts: int) -> None:
    """The instruction `Attend` of a program, shared among `parts` threads: row r of the queries over the keys of
    lanes[r], from starts[r] or the newest `window` on, to at[r]."""
    units = len(at) * program[index].attend.heads
    for part in prange(parts):
        task = program[index].attend
        heads, size = task.heads, task.size
        for unit in range(units * part // parts, units * (part + 1) // parts):
            r, h = unit // heads, unit % heads
            first = max(starts[r], at[r] + 1 - task.window)
            key_head = h // (heads // task.key_heads)
            lane_row = lanes[r] * task.cache_lane_stride + key_head * task.cache_head_stride
            q = task.q + r * task.row_stride + h * task.head_stride
            attend_head(task, q, lane_row + first, task.out + 4 * size * unit, at[r] + 1 - first)


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
    task: Any,
    b: int,
    h: int,
    first: int,
    turned: int,
    turned_step: int,
    query: Any,
    scores: Any,
    found: Any,
) -> None:
    """Queries `first` to at most `first + QUERIES` of head h of row b of the batch.

    `task` is a record of `instructions.Prompt`; the head's keys are transposed, (size, tokens) float32 at `turned`;
    the arrays are space to work in.
    """
    kind, T, D, scale = task.kind, task.queries, task.size, np.float32(task.scale)
    size, heads = 4 if kind == FLOAT32 else 2, task.heads
    n, seen = (
        min(QUERIES, T - first),
        task.tokens - T + first + 1,
    )  # the first query sees so many keys
    key_head = h // (heads // task.key_heads)
    q_step = task.q_token_stride
    q = task.q + b * task.q_batch_stride + h * task.q_head_stride + first * q_step
    v = task.values + b * task.cache_batch_stride + key_head * task.cache_head_stride
    out, out_step = task.out + size * D * ((b * T + first) * heads + h), size * D * heads
    S = seen + n - 1
    for t in range(n):
        for i in range(D):
            query[t, i] = load_number(q + t * q_step, kind, i) * scale
    at, base, step = scores.ctypes.data, query.ctypes.data, 4 * scores.shape[1]
    scores[:] = 0
    found[:] = 0
    for t in range(0, n, WIDTH):
        for s in range(0, S, WIDE):
            mix4(
                base + 4 * D * t, turned + 4 * s, at + t * step + 4 * s, 4 * D, turned_step, step, D
            )
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
            store_number(out + t * out_step, kind, i, found[t, i])


@compiled_parts
def attend_prompt(tasks: Any, parts: int) -> None:
    """Attention over a prompt, by the first of `tasks`, a table of `instructions.Prompt`.

    The last query sees all keys and each before it one less. `size` is a multiple of LANES, and keys lie side by side.
    """
    heads, tokens, size, batch = tasks[0].heads, tasks[0].tokens, tasks[0].size, tasks[0].batch
    groups = tasks[0].key_heads
    blocks = (tasks[0].queries + QUERIES - 1) // QUERIES
    wide = (tokens + WIDE - 1) // WIDE * WIDE
    apart = (
        wide + LANES
    )  # no power of two, which would put all rows into the same lines of the cache
    transposed = np.empty((batch * groups, size, apart), np.float32)
    for unit in prange(batch * groups):
        task = tasks[0]
        kind, number_size = task.kind, 4 if task.kind == FLOAT32 else 2
        head = unit % groups * task.cache_head_stride
        base = task.keys + unit // groups * task.cache_batch_stride + head
        for first in range(0, tokens, LANES):  # by blocks that the first cache holds
            for i in range(size):
                for s in range(first, min(first + LANES, tokens)):
                    transposed[unit, i, s] = load_number(base + s * number_size * size, kind, i)
    counter = np.zeros(8, np.int64)
    tickets = counter.ctypes.data
    for _ in prange(parts):
        query, found = np.zeros((QUERIES, size), np.float32), np.empty((QUERIES, size), np.float32)
        scores = np.zeros((QUERIES, wide), np.float32)
        unit = claim(tickets)
        while unit < batch * heads * blocks:
            b, h = unit // blocks // heads, unit // blocks % heads
            first = (
                blocks - 1 - unit % blocks
            ) * QUERIES  # the longest first, so that the threads end together
            g = h // (heads // groups)
            keys = transposed.ctypes.data + 4 * (b * groups + g) * size * apart
            attend_block(tasks[0], b, h, first, keys, 4 * apart, query, scores, found)
            unit = claim(tickets)
    keep_alive(counter)
