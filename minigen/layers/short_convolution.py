"""A gated short convolution over the tokens (LFM2, Liquid AI 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minigen.backends.base import Array, Backend
from minigen.layers.param import Param, linear_shapes, scale_down
from minigen.layers.slot import LayerSlots, Slot
from minigen.layers.step import Memory, Step

FEW = 16  # tokens that are read one after the other, which every backend can record


@dataclass(frozen=True)
class ShortConvolution:
    """out(c * convolution(b * x)), with b, c and x from one matrix; each channel has a filter of `length` of its own.

    What it remembers are the last length - 1 inputs of the convolution, the newest first.
    """

    width: int
    length: int
    bias: bool = False

    @property
    def memory(self) -> tuple[str, ...]:
        """The names of the inputs that are remembered, by how many tokens ago they came."""
        return tuple(f"ago{back}" for back in range(1, self.length))

    def shapes(self, width: int, layers: int) -> dict[str, Any]:
        bound = 1 / self.length**0.5
        kernel = {"weight": Param((self.width, 1, self.length), "uniform", bound)}
        if self.bias:
            kernel["bias"] = Param((self.width,), "zeros")
        return {
            "in": linear_shapes(width, 3 * self.width, self.bias, parts=(self.width,) * 3),
            "kernel": kernel,
            "out": scale_down(linear_shapes(self.width, width, self.bias), layers),
        }

    def slots(self) -> dict[str, Slot]:
        return {name: Slot((self.width,)) for name in self.memory}

    def apply(self, ops: Backend, p: Any, x: Array, step: Step, slots: LayerSlots | None) -> Array:
        """x (B, T, C) -> (B, T, C)."""
        b, c, x = ops.split(ops.linear(x, **p["in"]), (self.width,) * 3, axis=-1)
        if slots is None:
            zeros = ops.zeros((x.shape[0], self.width))
            before: Memory = (zeros,) * len(self.memory)
        else:
            before = tuple(slots.get(ops, name) for name in self.memory)
        convolve = self.one_by_one if step.T <= FEW or not step.in_line else self.at_once
        y, after = convolve(ops, p["kernel"], b * x, step, before)
        if slots is not None:
            for name, value in reversed(list(zip(self.memory, after, strict=True))):  # the oldest is needed no more
                slots.put(name, value)
        return ops.linear(c * y, **p["out"])

    def one_by_one(self, ops: Backend, p: Any, z: Array, step: Step, before: Memory) -> tuple[Array, Memory]:
        """z (B, T, C), a token after the other."""
        filters = [p["weight"][:, 0, self.length - 1 - back] for back in range(self.length)]

        def advance(newest: Array, memory: Memory) -> tuple[Array, Memory]:
            y = ops.scale_columns(newest, filters[0], p.get("bias"))
            for back, value in enumerate(memory, start=1):
                y = y + ops.scale_columns(value, filters[back])
            return y, (newest, *memory[:-1])

        return step.recur(ops, z, before, advance)

    def at_once(self, ops: Backend, p: Any, z: Array, step: Step, before: Memory) -> tuple[Array, Memory]:
        """z (B, T, C), all tokens of a row together."""
        real = step.share("real", lambda: step.real_on(ops))
        if real is not None:
            z = ops.where(real, z, ops.zeros(tuple(z.shape)))
        T = z.shape[1]
        line = ops.concat([ops.stack(before[::-1], axis=1), z], axis=1)  # (B, length - 1 + T, C)
        y = ops.scale_columns(line[:, self.length - 1 :], p["weight"][:, 0, self.length - 1], p.get("bias"))
        for back in range(1, self.length):
            first = self.length - 1 - back
            y = y + ops.scale_columns(line[:, first : first + T], p["weight"][:, 0, first])
        end = line.shape[1]
        return y, tuple(line[:, end - back] for back in range(1, self.length))
