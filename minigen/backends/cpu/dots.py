"""One row of activations times a matrix: every weight is read once and used once, so what counts is how fast memory is
read. Weights are float32, bfloat16, or 8 or 4 bits with a scale and a bias a group; activations are float32."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.backends.cpu.vectors import (
    LANES,
    add,
    compiled,
    floats,
    fma,
    high,
    load,
    load_bfloat16,
    load_bytes,
    load_nibbles,
    load_one,
    load_one_bfloat16,
    low,
    mul,
    splat,
    store_one,
    store_one_bfloat16,
    total,
    zeros,
)

FLOAT32, BFLOAT16, BITS8, BITS4 = 0, 1, 8, 4  # kinds of weights


@compiled
def dot(w: int, x: int, cols: int) -> Any:
    """The product of two rows of float32."""
    a, b, c, d = zeros(), zeros(), zeros(), zeros()
    j = 0
    while j + 4 * LANES <= cols:
        a = fma(load(w + 4 * j), load(x + 4 * j), a)
        b = fma(load(w + 4 * j + 64), load(x + 4 * j + 64), b)
        c = fma(load(w + 4 * j + 128), load(x + 4 * j + 128), c)
        d = fma(load(w + 4 * j + 192), load(x + 4 * j + 192), d)
        j += 4 * LANES
    while j + LANES <= cols:
        a = fma(load(w + 4 * j), load(x + 4 * j), a)
        j += LANES
    found = total(add(add(a, b), add(c, d)))
    for i in range(j, cols):
        found += load_one(w + 4 * i) * load_one(x + 4 * i)
    return found


@compiled
def dot_bfloat16(w: int, x: int, cols: int) -> Any:
    """The product of a row of bfloat16 with one of float32."""
    a, b, c, d = zeros(), zeros(), zeros(), zeros()
    j = 0
    while j + 4 * LANES <= cols:
        a = fma(load_bfloat16(w + 2 * j), load(x + 4 * j), a)
        b = fma(load_bfloat16(w + 2 * j + 32), load(x + 4 * j + 64), b)
        c = fma(load_bfloat16(w + 2 * j + 64), load(x + 4 * j + 128), c)
        d = fma(load_bfloat16(w + 2 * j + 96), load(x + 4 * j + 192), d)
        j += 4 * LANES
    while j + LANES <= cols:
        a = fma(load_bfloat16(w + 2 * j), load(x + 4 * j), a)
        j += LANES
    found = total(add(add(a, b), add(c, d)))
    for i in range(j, cols):
        found += load_one_bfloat16(w + 2 * i) * load_one(x + 4 * i)
    return found


@compiled
def load_number(base: int, kind: int, index: int) -> Any:
    return load_one(base + 4 * index) if kind == FLOAT32 else load_one_bfloat16(base + 2 * index)


@compiled
def store_number(base: int, kind: int, index: int, value: Any) -> None:
    if kind == FLOAT32:
        store_one(base + 4 * index, value)
    else:
        store_one_bfloat16(base + 2 * index, value)


@compiled
def load_codes(bits: int, base: int, index: int) -> Any:
    """16 codes of 8 or 4 bits, from the index on."""
    codes = load_bytes(base + index) if bits == BITS8 else load_nibbles(base + index // 2)
    return floats(codes)


@compiled
def dot_bits8(
    w: int,
    x: int,
    sums: int,
    scales: int,
    biases: int,
    kind: int,
    first: int,
    groups: int,
    group: int,
) -> Any:
    """A row of bytes q, of which each group stands for scale q + bias, with one of float32, whose sum over each group
    is in `sums`. `first` is the row's first group among the scales."""
    found, rest = zeros(), np.float32(0)
    for g in range(groups):
        a, b = zeros(), zeros()
        if group == LANES:
            a = mul(floats(load_bytes(w + g * LANES)), load(x + 4 * g * LANES))
        else:
            for j in range(g * group, (g + 1) * group, 2 * LANES):
                a = fma(floats(load_bytes(w + j)), load(x + 4 * j), a)
                b = fma(floats(load_bytes(w + j + LANES)), load(x + 4 * j + 64), b)
        found = fma(splat(load_number(scales, kind, first + g)), add(a, b), found)
        rest += load_number(biases, kind, first + g) * load_one(sums + 4 * g)
    return total(found) + rest


@compiled
def dot_bits4(
    w: int,
    even: int,
    odd: int,
    sums: int,
    scales: int,
    biases: int,
    kind: int,
    first: int,
    groups: int,
    group: int,
) -> Any:
    """The same with two columns a byte, the even one in its lower bits; activations come in two halves likewise."""
    found, rest = zeros(), np.float32(0)
    for g in range(groups):
        at, to = w + g * group // 2, 2 * g * group
        pairs = load_bytes(at)
        a = mul(floats(low(pairs)), load(even + to))
        b = mul(floats(high(pairs)), load(odd + to))
        if group >= 64:  # written out, as the compiler does not know how often it would go round
            more = load_bytes(at + 16)
            a = fma(floats(low(more)), load(even + to + 64), a)
            b = fma(floats(high(more)), load(odd + to + 64), b)
        for j in range(32, group // 2, LANES):
            rest_of = load_bytes(at + j)
            a = fma(floats(low(rest_of)), load(even + to + 4 * j), a)
            b = fma(floats(high(rest_of)), load(odd + to + 4 * j), b)
        found = fma(splat(load_number(scales, kind, first + g)), add(a, b), found)
        rest += load_number(biases, kind, first + g) * load_one(sums + 4 * g)
    return total(found) + rest


@compiled
def matvec(
    storage: Any, bias: int, x: int, out: int, cols: int, prepared: int, first: int, last: int
) -> None:
    """Rows `first` to `last` of a matrix (any, cols) times x (cols,), plus a bias -> the same rows of `out`.

    `storage` is a record of `instructions.Storage`; `prepared` is the address of what `prepare_row` made of x.
    """
    kind, numbers = storage.kind, storage.numbers
    scales, biases, scale_kind, group = (
        storage.scales,
        storage.biases,
        storage.scale_kind,
        storage.group,
    )
    groups = cols // group
    sums, even = prepared, prepared + 4 * groups
    odd = even + 2 * cols
    for i in range(first, last):
        first_group = i * groups
        if kind == FLOAT32:
            result = dot(numbers + 4 * i * cols, x, cols)
        elif kind == BFLOAT16:
            result = dot_bfloat16(numbers + 2 * i * cols, x, cols)
        elif kind == BITS8:
            row = numbers + i * cols
            result = dot_bits8(row, x, sums, scales, biases, scale_kind, first_group, groups, group)
        else:
            row = numbers + i * cols // 2
            result = dot_bits4(
                row, even, odd, sums, scales, biases, scale_kind, first_group, groups, group
            )
        plus = load_one(bias + 4 * i) if bias else np.float32(0)
        store_one(out + 4 * i, result + plus)


@compiled
def prepare_row(kind: int, group: int, x: int, cols: int) -> Any:
    """What the products of quantized weights need of x (cols,): its sums over each group, and for 4 bits also its even
    columns and its odd ones, each side by side."""
    groups = cols // group
    prepared = np.empty(groups + cols, np.float32)
    if kind in (BITS8, BITS4):
        for g in range(groups):
            sums = zeros()
            for j in range(g * group, (g + 1) * group, LANES):
                sums = add(sums, load(x + 4 * j))
            prepared[g] = total(sums)
    if kind == BITS4:
        half = groups + cols // 2
        for j in range(cols // 2):
            prepared[groups + j] = load_one(x + 8 * j)
            prepared[half + j] = load_one(x + 8 * j + 4)
    return prepared
