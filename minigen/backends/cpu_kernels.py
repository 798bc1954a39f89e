"""The operations of a decode step on a CPU, compiled by numba: one row of activations against matrices from memory.

A step of one token reads every weight once and does two operations with each, so it is as fast as memory is read, and
torch's product of a row and a matrix reads with a third of that speed. Arrays come as addresses, with a number of
their element type beside (`kind`): float32, or uint16 for bfloat16, which numba does not have; the arithmetic is
float32. A `parts` function shares its work among so many threads; the function before it does one share.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from llvmlite import ir
from numba import carray, config, njit, prange, types
from numba.extending import intrinsic, overload, register_jitable

config.THREADING_LAYER = "omp"
# Sums in any order, so that they use the whole width of the processor; NaN and infinity stay what they are.
FAST = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "cache": True, "error_model": "numpy"}

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    return cast(Function, njit(**FAST)(function))


def compiled_parts(function: Function) -> Function:
    return cast(Function, njit(parallel=True, **FAST)(function))


@intrinsic  # type: ignore[untyped-decorator]
def pointer(context: Any, address: Any, kind: Any) -> Any:
    """An address as a pointer to elements of `kind`."""

    def code(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], target.get_value_type(signature.return_type))

    return types.CPointer(kind)(types.int64, kind), code


def bitcast(taken: Any, given: Any, code_type: Any) -> Any:
    """A function that reads the bits of one type as another."""

    @intrinsic  # type: ignore[untyped-decorator]
    def reread(context: Any, value: Any) -> Any:
        def code(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], code_type)

        return given(taken), code

    return reread


as_float = bitcast(types.uint32, types.float32, ir.FloatType())
as_bits = bitcast(types.float32, types.uint32, ir.IntType(32))


def widen(x: Any) -> Any:
    """An element as float32."""


@overload(widen, inline="always")  # type: ignore[untyped-decorator]
def _widen(x: Any) -> Any:
    def same(x: Any) -> Any:
        return x

    def shifted(x: Any) -> Any:
        return as_float(np.uint32(x) << np.uint32(16))

    return same if x == types.float32 else shifted


def narrow(x: Any, kind: Any) -> Any:
    """float32 as an element: bfloat16 is rounded to the nearest, of two to the even one."""


@overload(narrow, inline="always")  # type: ignore[untyped-decorator]
def _narrow(x: Any, kind: Any) -> Any:
    def same(x: Any, kind: Any) -> Any:
        return np.float32(x)

    def rounded(x: Any, kind: Any) -> Any:
        if x != x:
            return np.uint16(0x7FC0)
        bits = as_bits(np.float32(x))
        return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))

    return same if kind == types.float32 else rounded


@register_jitable(inline="always")  # type: ignore[untyped-decorator]
def array(address: Any, kind: Any, size: Any) -> Any:
    return carray(pointer(address, kind), size)


# -- y = weight x + bias ----------------------------------------------------------------------------------------------
@compiled
def linear(kind: Any, weight: int, bias: int, x: Any, out: int, rows: int, cols: int, low: int, high: int) -> None:
    """Rows low to high of weight (rows, cols) times x (cols,), which is float32; a bias at address 0 is none."""
    W, y = array(weight, kind, (rows, cols)), array(out, kind, rows)
    b = array(bias, kind, rows)
    for i in range(low, high):
        total = np.float32(0)
        for j in range(cols):
            total += widen(W[i, j]) * x[j]
        y[i] = narrow(total + widen(b[i]) if bias else total, kind)


@compiled
def widened(kind: Any, address: int, size: int) -> Any:
    x, y = array(address, kind, size), np.empty(size, np.float32)
    for j in range(size):
        y[j] = widen(x[j])
    return y


@compiled_parts
def linear_parts(kind: Any, weight: int, bias: int, x: int, out: int, rows: int, cols: int, parts: int) -> None:
    """weight (rows, cols), bias (rows,) or address 0, x (cols,) -> out (rows,)."""
    row = widened(kind, x, cols)
    for part in prange(parts):
        linear(kind, weight, bias, row, out, rows, cols, rows * part // parts, rows * (part + 1) // parts)


# -- attention of one query -------------------------------------------------------------------------------------------
@compiled
def attend(
    kind: Any, q: int, k: int, v: int, out: int, heads: int, groups: int, S: int, D: int, stride: int, scale: float,
    low: int, high: int,
) -> None:  # fmt: skip
    """Heads low to high of q (heads, D) over k and v (groups, S, D), whose groups lie `stride` elements apart."""
    Q, Y = array(q, kind, (heads, D)), array(out, kind, (heads, D))
    K, V = array(k, kind, (groups * stride,)), array(v, kind, (groups * stride,))
    weights, query, found = np.empty(S, np.float32), np.empty(D, np.float32), np.empty(D, np.float32)
    for head in range(low, high):
        first = head // (heads // groups) * stride
        for d in range(D):
            query[d] = widen(Q[head, d]) * np.float32(scale)
            found[d] = np.float32(0)
        most = np.float32(-np.inf)
        for s in range(S):
            score = np.float32(0)
            for d in range(D):
                score += query[d] * widen(K[first + s * D + d])
            weights[s] = score
            most = max(most, score)
        total = np.float32(0)
        for s in range(S):
            weights[s] = math.exp(weights[s] - most)
            total += weights[s]
        for s in range(S):
            weight = weights[s]
            for d in range(D):
                found[d] += weight * widen(V[first + s * D + d])
        for d in range(D):
            Y[head, d] = narrow(found[d] / total, kind)


@compiled_parts
def attend_parts(
    kind: Any, q: int, k: int, v: int, out: int, heads: int, groups: int, S: int, D: int, stride: int, scale: float,
    parts: int,
) -> None:  # fmt: skip
    for part in prange(parts):
        low, high = heads * part // parts, heads * (part + 1) // parts
        attend(kind, q, k, v, out, heads, groups, S, D, stride, scale, low, high)


# -- what is small ----------------------------------------------------------------------------------------------------
@compiled
def rms_norm(kind: Any, x: int, weight: int, out: int, rows: int, cols: int, eps: float) -> None:
    """Each row of x (rows, cols) over the root of its mean square, times weight (cols,)."""
    X, W, Y = array(x, kind, (rows, cols)), array(weight, kind, cols), array(out, kind, (rows, cols))
    for i in range(rows):
        total = np.float32(0)
        for j in range(cols):
            total += widen(X[i, j]) ** 2
        factor = np.float32(1 / math.sqrt(total / cols + eps))
        for j in range(cols):
            Y[i, j] = narrow(widen(X[i, j]) * factor * widen(W[j]), kind)


@compiled
def rotate(kind: Any, x: int, cos: int, sin: int, out: int, heads: int, D: int, half: int) -> None:
    """The first 2 half dimensions of each head of x (heads, D), i together with i + half; cos and sin (half,)."""
    X, Y = array(x, kind, (heads, D)), array(out, kind, (heads, D))
    C, S = array(cos, kind, half), array(sin, kind, half)
    for h in range(heads):
        for i in range(half):
            a, b, c, s = widen(X[h, i]), widen(X[h, i + half]), widen(C[i]), widen(S[i])
            Y[h, i], Y[h, i + half] = narrow(a * c - b * s, kind), narrow(b * c + a * s, kind)
        for i in range(2 * half, D):
            Y[h, i] = X[h, i]
