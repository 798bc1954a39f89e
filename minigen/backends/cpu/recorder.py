"""A backend that computes nothing: it writes down, for one pass of few new tokens, what there is to compute.

The model runs over it once. Its arrays are NumPy's, over memory that the program keeps: reshaping, splitting and
turning axes are NumPy's own views, and cost nothing when the program runs. A step is recorded at every position at
once (`layers.step.AnyStep`): what depends on the position becomes a table that the program looks into.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from minigen.backends.base import Array
from minigen.backends.cpu import small
from minigen.backends.cpu.cache import UnrecordableError
from minigen.backends.cpu.instructions import (
    Activate,
    Instruction,
    Linear,
    Lookup,
    Norm,
    Pairwise,
    ScaleShift,
)
from minigen.backends.cpu.matrix import Matrix
from minigen.backends.cpu.recorded import Ids, Recorded, address_of, check
from minigen.backends.cpu.recorded_attention import RecordedAttention
from minigen.backends.cpu.recurrences import Recurrences
from minigen.backends.cpu.vectors import LANES


class Recorder(RecordedAttention, Recurrences):
    """For `ids` of the shape (B, T), of which one is 1."""

    name, device, accelerated = "recorder", "cpu", False

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape, self.rows = shape, shape[0] * shape[1]
        if 1 not in shape:
            raise UnrecordableError("several tokens of several rows")
        self.instructions: list[Instruction] = []
        self.kept: list[Any] = []  # whose addresses are in the instructions
        self.free: dict[int, list[npt.NDArray[Any]]] = {}
        self.ids = Ids(shape)
        self.tables = [2**62, 2**62]  # the fewest rows that ids and positions are looked up in

    def __getattr__(self, name: str) -> Any:
        raise UnrecordableError(name)

    # -- memory -------------------------------------------------------------------------------------------------------
    def new(self, *shape: int) -> Recorded:
        """Memory for a result. When nothing holds it any more, what is computed later may use it."""
        size = int(np.prod(shape)) + LANES
        pool = self.free.setdefault(size, [])
        if pool:
            memory = pool.pop()
        else:
            memory = np.zeros(size, np.float32)
            self.kept.append(memory)
        array = np.ndarray.__new__(Recorded, shape, np.float32, buffer=memory)
        array.recorder = self
        weakref.finalize(array, pool.append, memory).atexit = False
        return array

    def keep(self, x: Any) -> int:
        """The address of a framework's or NumPy's array, which stays."""
        self.kept.append(x)
        return int(x.data_ptr()) if isinstance(x, torch.Tensor) else address_of(x)

    def floats(self, x: Array | None) -> int:
        """The address of a small parameter in float32; 0 for None."""
        return 0 if x is None else self.keep(x.detach().float().contiguous())

    def lines(self, x: Any, *inner: int) -> npt.NDArray[Any]:
        """x (B, T, ...) as (rows, *inner), in the same memory. Raises UnrecordableError for what is no such thing."""
        if not isinstance(x, Recorded):
            raise UnrecordableError("an array that the step did not make")
        lines: npt.NDArray[Any] = x.reshape(-1, *inner)
        if lines.shape[-1] > 1 and lines.strides[-1] != 4:
            raise UnrecordableError("columns that are not side by side")
        return lines

    def matrix(self, weight: Any) -> Matrix:
        matrix = Matrix.of(weight)
        if matrix is None:
            raise UnrecordableError(f"weights of {type(weight)}")
        self.kept.append(weight)
        return matrix

    # -- the protocol -------------------------------------------------------------------------------------------------
    def asarray(self, x: npt.ArrayLike) -> Any:
        """A constant."""
        x = np.asarray(x)
        return np.ascontiguousarray(x, np.float32) if x.dtype.kind == "f" else x

    def dropout(self, x: Any) -> Any:
        return x

    def permute(self, x: Any, axes: Sequence[int]) -> Any:
        return np.transpose(x, tuple(axes))

    def split(self, x: Any, sizes: Sequence[int], axis: int) -> list[Any]:
        return np.split(x, np.cumsum(sizes)[:-1], axis=axis)

    def take(self, x: Any, indices: Sequence[int], axis: int) -> Any:
        if list(indices) != list(range(x.shape[axis])):
            raise UnrecordableError("a choice among the tokens")
        return x

    def embedding(self, ids: Any, weight: Any) -> Any:
        by_position = ids is not self.ids
        if by_position and not np.array_equal(ids, np.arange(ids.size)[None]):
            raise UnrecordableError("an embedding of something else")
        matrix = self.matrix(weight)
        self.tables[by_position] = min(self.tables[by_position], matrix.rows)
        found = self.new(*self.shape, matrix.cols)
        lookup = Lookup(matrix.storage, matrix.cols, address_of(found), by_position)
        self.instructions.append(lookup)
        return found

    def linear(self, x: Any, weight: Any, bias: Array | None = None) -> Any:
        matrix = self.matrix(weight)
        check(
            x.shape[-1] == matrix.cols and (bias is None or bias.shape == (matrix.rows,)),
            "a product",
        )
        lines, found = self.lines(x, matrix.cols), self.new(*x.shape[:-1], matrix.rows)
        product = Linear(
            weight=matrix.storage,
            bias=self.floats(bias),
            x=address_of(lines),
            x_stride=lines.strides[0],
            out=address_of(found),
            out_stride=4 * matrix.rows,
            rows=len(lines),
            outputs=matrix.rows,
            inputs=matrix.cols,
        )
        self.instructions.append(product)
        return found

    def layer_norm(self, x: Any, weight: Array, bias: Array | None, eps: float) -> Any:
        return self.norm(small.LAYER_NORM, x, weight, bias, eps)

    def rms_norm(self, x: Any, weight: Array, eps: float) -> Any:
        return self.norm(small.RMS_NORM, x, weight, None, eps)

    def norm(self, which: int, x: Any, weight: Array, bias: Array | None, eps: float) -> Any:
        cols = weight.shape[0]
        check(x.shape[-1] == cols and (bias is None or bias.shape == (cols,)), "a norm")
        heads = 1 if x.ndim == 3 else x.shape[2]
        lines, found = self.lines(x, heads, cols), self.new(*x.shape)
        norm = Norm(
            which=which,
            x=address_of(lines),
            row_stride=lines.strides[0],
            head_stride=lines.strides[1],
            weight=self.floats(weight),
            bias=self.floats(bias),
            out=address_of(found),
            rows=len(lines),
            heads=heads,
            cols=cols,
            eps=eps,
        )
        self.instructions.append(norm)
        return found

    def activate(self, which: int, x: Any) -> Any:
        lines, found = self.lines(x, x.shape[-1]), self.new(*x.shape)
        activation = Activate(
            which,
            x=address_of(lines),
            x_stride=lines.strides[0],
            out=address_of(found),
            rows=len(lines),
            cols=x.shape[-1],
        )
        self.instructions.append(activation)
        return found

    def gelu(self, x: Any, approximate: bool) -> Any:
        return self.activate(small.GELU_TANH if approximate else small.GELU, x)

    def relu(self, x: Any) -> Any:
        return self.activate(small.RELU, x)

    def silu(self, x: Any) -> Any:
        return self.activate(small.SILU, x)

    def sigmoid(self, x: Any) -> Any:
        return self.activate(small.SIGMOID, x)

    def tanh(self, x: Any) -> Any:
        return self.activate(small.TANH, x)

    def recurrence(self, cell: str, p: Any, x: Any, state: Any) -> Any:
        return None

    def arithmetic(self, function: Any, method: str, given: Any, settings: Any) -> Any:
        """`+`, `-` and `*` of two recorded arrays of one shape, or with a number."""
        if method != "__call__" or settings or function not in (np.add, np.multiply, np.subtract):
            raise UnrecordableError(function.__name__)
        x, y = given
        if isinstance(x, Recorded) and isinstance(y, Recorded):
            if x.shape == y.shape and function is not np.subtract:
                return self.pairwise(small.ADD if function is np.add else small.MUL, x, y)
        elif isinstance(x, Recorded) and isinstance(y, (int, float)):
            if function is np.multiply:
                return self.scale_shift(x, float(y), 0.0)
            return self.scale_shift(x, 1.0, float(y) if function is np.add else -float(y))
        elif isinstance(x, (int, float)) and function is np.subtract:
            return self.scale_shift(y, -1.0, float(x))
        raise UnrecordableError(f"{function.__name__} of these shapes")

    def pairwise(self, which: int, x: Any, y: Any) -> Any:
        """The sums or products of two recorded arrays of one shape."""
        lines, others = self.lines(x, x.shape[-1]), self.lines(y, x.shape[-1])
        found = self.new(*x.shape)
        pair = Pairwise(
            which,
            x=address_of(lines),
            x_stride=lines.strides[0],
            y=address_of(others),
            y_stride=others.strides[0],
            out=address_of(found),
            rows=len(lines),
            cols=x.shape[-1],
        )
        self.instructions.append(pair)
        return found

    def scale_shift(self, x: Any, factor: float, shift: float) -> Any:
        """factor x + shift."""
        found = self.new(*x.shape)
        self.scale_shift_to(address_of(found), x, factor, shift)
        return found

    def scale_shift_to(self, out: int, x: Any, factor: float, shift: float) -> None:
        """factor x + shift, its rows side by side at an address."""
        lines = self.lines(x, x.shape[-1])
        result = ScaleShift(
            x=address_of(lines),
            x_stride=lines.strides[0],
            out=out,
            rows=len(lines),
            cols=x.shape[-1],
            factor=factor,
            shift=shift,
        )
        self.instructions.append(result)
