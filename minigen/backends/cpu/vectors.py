"""Vectors of 16 numbers for numba: what a kernel reads, and how fast, does not hang on what the compiler finds.

LLVM turns them into whatever registers a processor has. Addresses are int64, in bytes; `Floats` are float32.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

from llvmlite import ir
from numba import config, njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from minigen.backends.cpu.compiling import cache_folder

config.CACHE_DIR = str(cache_folder())
if "NUMBA_THREADING_LAYER" not in os.environ:
    # numba's wheel for macOS brings no libomp: none may be found, or a second one beside torch's.
    config.THREADING_LAYER = "workqueue" if sys.platform == "darwin" else "omp"
# Sums in any order and products with sums in one operation; NaN and infinity stay what they are.
FAST = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "cache": True, "error_model": "numpy"}
LANES = 16

Function = TypeVar("Function", bound=Callable[..., Any])

FLOAT, INT, ADDRESS = ir.FloatType(), ir.IntType(32), ir.IntType(64)
FLOATS, INTS = ir.VectorType(FLOAT, LANES), ir.VectorType(INT, LANES)


def compiled(function: Function) -> Function:
    return cast(Function, njit(**FAST)(function))


def compiled_parts(function: Function) -> Function:
    return cast(Function, njit(parallel=True, **FAST)(function))


@compiled
def keep_alive(array: Any) -> None:
    """Keeps an array to here: numba frees one after its last use, and does not see what is done by its address."""


class Vector(types.Type):  # type: ignore[misc]
    """numba's name of a vector."""


class FloatsModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, FLOATS if kind.name == "Floats" else INTS)


Floats, Ints = Vector("Floats"), Vector("Ints")
register_model(Vector)(FloatsModel)


def operation(result: Any, *given: Any) -> Callable[[Callable[..., Any]], Any]:
    """Makes an operation of the function that writes its LLVM code: (builder, values) -> value."""

    def declare(build: Callable[..., Any]) -> Any:
        def typed(*_: Any) -> Any:
            return result(*given), lambda context, builder, signature, values: build(
                builder, *values
            )

        arities: list[Callable[..., Any]] = [
            lambda context: typed(),
            lambda context, a: typed(),
            lambda context, a, b: typed(),
            lambda context, a, b, c: typed(),
            lambda context, a, b, c, d, e, f, g: typed(),
        ]
        return intrinsic(arities[min(len(given), 4)])

    return declare


def constant(kind: Any, value: Any) -> Any:
    return ir.Constant(kind, [value] * LANES)


def library(b: Any, name: str, result: Any, *values: Any, **flags: Any) -> Any:
    """A call of one of LLVM's own functions."""
    kind = ir.FunctionType(result, [value.type for value in values])
    return b.call(cgutils.get_or_insert_function(b.module, kind, name), values, **flags)


def read(b: Any, address: Any, kind: Any, align: int) -> Any:
    return b.load(b.inttoptr(address, kind.as_pointer()), align=align)


# -- memory -----------------------------------------------------------------------------------------------------------
@operation(Floats, types.int64)
def load(b: Any, address: Any) -> Any:
    return read(b, address, FLOATS, 4)


@operation(Floats, types.int64)
def load_bfloat16(b: Any, address: Any) -> Any:
    return read_bfloat16(b, address)


def read_bfloat16(b: Any, address: Any) -> Any:
    bits = b.zext(read(b, address, ir.VectorType(ir.IntType(16), LANES), 2), INTS)
    return b.bitcast(b.shl(bits, constant(INTS, 16)), FLOATS)


@operation(Ints, types.int64)
def load_bytes(b: Any, address: Any) -> Any:
    return b.zext(read(b, address, ir.VectorType(ir.IntType(8), LANES), 1), INTS)


@operation(types.float32, types.int64)
def load_one(b: Any, address: Any) -> Any:
    return read(b, address, FLOAT, 4)


@operation(types.float32, types.int64)
def load_one_bfloat16(b: Any, address: Any) -> Any:
    return b.bitcast(
        b.shl(b.zext(read(b, address, ir.IntType(16), 2), INT), ir.Constant(INT, 16)), FLOAT
    )


@operation(Ints, types.int64)
def load_nibbles(b: Any, address: Any) -> Any:
    """8 bytes as 16 numbers of four bits, the lower ones first."""
    half = ir.VectorType(ir.IntType(8), LANES // 2)
    pairs = read(b, address, half, 1)
    lower = b.and_(pairs, ir.Constant(half, [15] * (LANES // 2)))
    upper = b.lshr(pairs, ir.Constant(half, [4] * (LANES // 2)))
    turns = ir.Constant(INTS, [i // 2 + i % 2 * (LANES // 2) for i in range(LANES)])
    return b.zext(b.shuffle_vector(lower, upper, turns), INTS)


@operation(types.void, types.int64, Floats)
def store(b: Any, address: Any, value: Any) -> Any:
    b.store(value, b.inttoptr(address, FLOATS.as_pointer()), align=4)
    return ir.Constant(ir.IntType(8).as_pointer(), None)


@operation(types.void, types.int64, types.float32)
def store_one(b: Any, address: Any, value: Any) -> Any:
    b.store(value, b.inttoptr(address, FLOAT.as_pointer()), align=4)
    return ir.Constant(ir.IntType(8).as_pointer(), None)


@operation(types.void, types.int64, types.float32)
def store_one_bfloat16(b: Any, address: Any, value: Any) -> Any:
    """Rounded to the nearest, of two to the even one."""
    bits, kind = b.bitcast(value, INT), ir.IntType(16)
    odd = b.and_(b.lshr(bits, ir.Constant(INT, 16)), ir.Constant(INT, 1))
    rounded = b.lshr(b.add(b.add(bits, ir.Constant(INT, 0x7FFF)), odd), ir.Constant(INT, 16))
    number = b.select(b.fcmp_unordered("uno", value, value), ir.Constant(INT, 0x7FC0), rounded)
    b.store(b.trunc(number, kind), b.inttoptr(address, kind.as_pointer()), align=2)
    return ir.Constant(ir.IntType(8).as_pointer(), None)


@operation(types.void, types.int64, types.int64)
def store_byte(b: Any, address: Any, value: Any) -> Any:
    kind = ir.IntType(8)
    b.store(b.trunc(value, kind), b.inttoptr(address, kind.as_pointer()), align=1)
    return ir.Constant(kind.as_pointer(), None)


@operation(types.int64, types.int64)
def claim(b: Any, address: Any) -> Any:
    """The number at an address, which is one more afterwards: no two threads get the same."""
    return b.atomic_rmw(
        "add", b.inttoptr(address, ADDRESS.as_pointer()), ir.Constant(ADDRESS, 1), "monotonic"
    )


# -- arithmetic -------------------------------------------------------------------------------------------------------
@operation(Floats, types.float32)
def splat(b: Any, value: Any) -> Any:
    """The same number 16 times."""
    return spread(b, value)


def spread(b: Any, value: Any) -> Any:
    empty = ir.Constant(FLOATS, ir.Undefined)
    first = b.insert_element(empty, value, ir.Constant(INT, 0))
    return b.shuffle_vector(first, empty, constant(INTS, 0))


@operation(Floats)
def zeros(b: Any) -> Any:
    return constant(FLOATS, 0.0)


@operation(Floats, Floats, Floats)
def add(b: Any, x: Any, y: Any) -> Any:
    return b.fadd(x, y)


@operation(Floats, Floats, Floats)
def mul(b: Any, x: Any, y: Any) -> Any:
    return b.fmul(x, y)


@operation(Floats, Floats, Floats)
def div(b: Any, x: Any, y: Any) -> Any:
    return b.fdiv(x, y)


@operation(Floats, Floats, Floats, Floats)
def fma(b: Any, x: Any, y: Any, z: Any) -> Any:
    """x y + z."""
    return library(b, "llvm.fmuladd.v16f32", FLOATS, x, y, z)


@operation(types.float32, Floats)
def total(b: Any, x: Any) -> Any:
    return library(
        b,
        "llvm.vector.reduce.fadd.v16f32",
        FLOAT,
        ir.Constant(FLOAT, 0.0),
        x,
        fastmath=("reassoc",),
    )


@operation(Floats, Ints)
def floats(b: Any, x: Any) -> Any:
    return b.sitofp(x, FLOATS)


@operation(Ints, Ints)
def low(b: Any, x: Any) -> Any:
    """The lower four bits."""
    return b.and_(x, constant(INTS, 15))


@operation(Ints, Ints)
def high(b: Any, x: Any) -> Any:
    """What is above the lower four bits."""
    return b.lshr(x, constant(INTS, 4))


@operation(Floats, Floats)
def exp(b: Any, x: Any) -> Any:
    """e^x, right to 2 units in the last place, between -87 and 88; beyond, what it is there. NaN stays NaN.

    x = n log 2 + r with |r| <= log(2)/2: 2^n goes into the exponent, e^r is its Taylor polynomial.
    """

    def number(value: float) -> Any:
        return constant(FLOATS, value)

    inside = library(b, "llvm.minnum.v16f32", FLOATS, x, number(88.0))
    inside = library(b, "llvm.maxnum.v16f32", FLOATS, inside, number(-87.0))
    n = library(b, "llvm.rint.v16f32", FLOATS, b.fmul(inside, number(1.4426950408889634)))
    # log 2 in two parts, of which the first has few digits, so that its product with n is exact
    r = library(b, "llvm.fma.v16f32", FLOATS, n, number(-0.693359375), inside)
    r = library(b, "llvm.fma.v16f32", FLOATS, n, number(2.12194440e-4), r)
    power = number(1 / 5040)
    for term in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
        power = library(b, "llvm.fma.v16f32", FLOATS, power, r, number(term))
    exponent = b.shl(b.add(b.fptosi(n, INTS), constant(INTS, 127)), constant(INTS, 23))
    found = b.fmul(power, b.bitcast(exponent, FLOATS))
    return b.select(b.fcmp_unordered("uno", x, x), x, found)
