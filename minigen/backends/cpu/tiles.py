"""The inner loops of products of matrices, as large as the registers of a processor allow."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from minigen.backends.cpu.vectors import (
    ADDRESS,
    FLOAT,
    FLOATS,
    INT,
    LANES,
    constant,
    library,
    operation,
    read,
    read_bfloat16,
    spread,
)


def prefetch(b: Any, address: Any) -> None:
    """Says that a line of memory will be wanted soon. It need not exist."""
    pointer = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [pointer, INT, INT, INT])
    function = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0")
    b.call(
        function, [b.inttoptr(address, pointer), *(ir.Constant(INT, x) for x in (0, 3, 1))]
    )  # to read; near; data


def tile(height: int, width: int, size: int) -> Any:
    """The products of `height` rows of weights with `width` rows of activations over the first `cols` columns (a
    multiple of 16): (w, x, y, w step, x step, y step, cols), steps in bytes from row to row. All is float32, but for
    the weights, which with a `size` of 2 bytes are bfloat16.

    y (width, height) is overwritten. Each number that is read is used several times from a register.
    """

    @operation(types.void, *[types.int64] * 7)
    def product(
        b: Any, w: Any, x: Any, y: Any, w_step: Any, x_step: Any, y_step: Any, cols: Any
    ) -> Any:
        def place(base: Any, step: Any, row: int) -> Any:
            return b.add(base, b.mul(step, ir.Constant(ADDRESS, row)))

        sums = {(i, j): cgutils.alloca_once(b, FLOATS) for i in range(height) for j in range(width)}
        for pointer in sums.values():
            b.store(constant(FLOATS, 0.0), pointer)
        ws = [place(w, w_step, i) for i in range(height)]
        xs = [place(x, x_step, j) for j in range(width)]
        with cgutils.for_range(b, b.udiv(cols, ir.Constant(ADDRESS, LANES))) as loop:
            at = b.mul(loop.index, ir.Constant(ADDRESS, 4 * LANES))
            if size == 4:
                left = [read(b, b.add(base, at), FLOATS, 4) for base in ws]
            else:
                half = b.lshr(at, ir.Constant(ADDRESS, 1))
                left = [read_bfloat16(b, b.add(base, half)) for base in ws]
            ahead = b.add(b.mul(w_step, ir.Constant(ADDRESS, height)), at if size == 4 else half)
            for base in ws:
                prefetch(b, b.add(base, ahead))
            for j, base in enumerate(xs):
                right = read(b, b.add(base, at), FLOATS, 4)
                for i in range(height):
                    value = library(
                        b, "llvm.fmuladd.v16f32", FLOATS, left[i], right, b.load(sums[i, j])
                    )
                    b.store(value, sums[i, j])
        zero = ir.Constant(FLOAT, 0.0)
        for (i, j), pointer in sums.items():
            found = library(
                b,
                "llvm.vector.reduce.fadd.v16f32",
                FLOAT,
                zero,
                b.load(pointer),
                fastmath=("reassoc",),
            )
            to = b.add(place(y, y_step, j), ir.Constant(ADDRESS, 4 * i))
            b.store(found, b.inttoptr(to, FLOAT.as_pointer()), align=4)
        return ir.Constant(ir.IntType(8).as_pointer(), None)

    return product


def mixture(width: int, vectors: int, size: int = 4) -> Any:
    """Adds to `width` rows `out` weighted sums of `count` rows v of 16 `vectors` numbers, by `width` rows p of weights:
    (p, v, out, p step, v step, out step, count), steps in bytes. All is float32, but for v, which with a `size` of 2
    is bfloat16."""

    @operation(types.void, *[types.int64] * 7)
    def product(
        b: Any, p: Any, v: Any, out: Any, p_step: Any, v_step: Any, out_step: Any, count: Any
    ) -> Any:
        def target(i: int, j: int) -> Any:
            at = b.add(
                b.mul(out_step, ir.Constant(ADDRESS, i)), ir.Constant(ADDRESS, 4 * LANES * j)
            )
            return b.inttoptr(b.add(out, at), FLOATS.as_pointer())

        sums: list[list[Any]] = []
        for i in range(width):
            sums.append([cgutils.alloca_once(b, FLOATS) for _ in range(vectors)])
            for j in range(vectors):
                b.store(b.load(target(i, j), align=4), sums[i][j])
        lines = [b.add(p, b.mul(p_step, ir.Constant(ADDRESS, i))) for i in range(width)]
        with cgutils.for_range(b, count) as loop:
            row = b.add(v, b.mul(v_step, loop.index))
            values = []
            for j in range(vectors):
                at = b.add(row, ir.Constant(ADDRESS, size * LANES * j))
                values.append(read(b, at, FLOATS, 4) if size == 4 else read_bfloat16(b, at))
            for i, line in enumerate(lines):
                weight = read(b, b.add(line, b.mul(loop.index, ir.Constant(ADDRESS, 4))), FLOAT, 4)
                everywhere = spread(b, weight)
                for j, value in enumerate(values):
                    found = library(
                        b, "llvm.fmuladd.v16f32", FLOATS, everywhere, value, b.load(sums[i][j])
                    )
                    b.store(found, sums[i][j])
        for i in range(width):
            for j in range(vectors):
                b.store(b.load(sums[i][j]), target(i, j), align=4)
        return ir.Constant(ir.IntType(8).as_pointer(), None)

    return product
