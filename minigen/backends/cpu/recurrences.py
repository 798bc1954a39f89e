"""What a recurrence or a short convolution asks of the recorder: a state that is overwritten, and tokens in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from minigen.backends.base import Array
from minigen.backends.cpu import small
from minigen.backends.cpu.cache import UnrecordableError
from minigen.backends.cpu.instructions import Instruction, Pairwise
from minigen.backends.cpu.recorded import Recorded, address_of, check


class Recurrences:
    """Operations of the Recorder, in a file of their own."""

    shape: tuple[int, int]
    kept: list[Any]
    new: Any
    lines: Any
    floats: Any
    scale_shift_to: Any
    instructions: list[Instruction]

    def scale_columns(self, x: Any, factors: Array, plus: Array | None = None) -> Any:
        """A pair of rows where the second is the same for all of the first."""
        for which, vector in ((small.MUL, factors), (small.ADD, plus)):
            if vector is not None:
                check(tuple(vector.shape) == x.shape[-1:], "a vector")
                lines, found = self.lines(x, x.shape[-1]), self.new(*x.shape)
                product = Pairwise(
                    which,
                    x=address_of(lines),
                    x_stride=lines.strides[0],
                    y=self.floats(vector),
                    y_stride=0,
                    out=address_of(found),
                    rows=len(lines),
                    cols=x.shape[-1],
                )
                self.instructions.append(product)
                x = found
        return x

    def stack(self, xs: Sequence[Any], axis: int) -> Any:
        """Outputs (B, C) of the tokens of one text each -> (B, T, C)."""
        first = xs[0]
        if axis != 1 or first.ndim != 2 or len(xs) != self.shape[1]:
            raise UnrecordableError("a stack of other than the tokens")
        if len(xs) == 1:
            return first.reshape(len(first), 1, first.shape[1])
        found = self.new(1, len(xs), first.shape[1])
        for t, x in enumerate(xs):
            self.copy_to(address_of(found[0, t]), x)
        return found

    def copy_to(self, out: int, x: Any) -> None:
        """The rows of x side by side at an address."""
        self.scale_shift_to(out, x, 1.0, 0.0)

    def copy(self, x: Any) -> Any:
        found = self.new(*x.shape)
        self.copy_to(address_of(found), x)
        return found

    def remembered(self, buffer: Any) -> Any:
        if (
            not isinstance(buffer, torch.Tensor)
            or buffer.dtype != torch.float32
            or not buffer.is_contiguous()
        ):
            raise UnrecordableError("a state of this kind")
        memory = buffer.numpy()
        self.kept.append(memory)
        array = np.ndarray.__new__(Recorded, memory.shape, np.float32, buffer=memory)
        array.recorder = self  # type: ignore[assignment]
        return array

    def assign(self, buffer: Any, new: Any) -> Any:
        check(tuple(buffer.shape) == new.shape, "a state")
        self.copy_to(address_of(self.remembered(buffer)), new)
        return buffer
