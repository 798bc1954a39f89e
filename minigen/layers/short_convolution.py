"""A gated short convolution over the tokens, as in LFM2 (Liquid AI 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minigen.backends.base import Array, Backend
from minigen.layers.param import Param, linear_shapes, scale_down
from minigen.layers.slot import LayerSlots, Slot
from minigen.layers.step import Memory, Step, remembered

FEW = 16  # up to so many tokens are read one by one, which every backend can record


@dataclass(frozen=True)
class ShortConvolution:
    """out(c * convolution(b * x)), where b, c and x come from one matrix.

    Each channel has its own filter over `length` tokens. What the block remembers are the last
    `length - 1` inputs of the convolution, the newest first.
    """

    width: int
    length: int
    bias: bool = False

    @property
    def memory(self) -> tuple[str, ...]:
        """The names of the remembered inputs, by how many tokens ago they came."""
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
        before = remembered(ops, slots, self.memory, (x.shape[0], self.width))
        if step.T <= FEW or not step.sequential:
            y, after = self.token_by_token(ops, p["kernel"], b * x, step, before)
        else:
            y, after = self.all_tokens(ops, p["kernel"], b * x, step, before)
        if slots is not None:
            updates = list(zip(self.memory, after, strict=True))
            for name, value in reversed(updates):  # from the oldest, whose old value nobody needs
                slots.put(name, value)
        return ops.linear(c * y, **p["out"])

    def token_by_token(
        self, ops: Backend, p: Any, z: Array, step: Step, before: Memory
    ) -> tuple[Array, Memory]:
        """The convolution of z (B, T, C), one token after the other, and the memory after it."""
        last = self.length - 1
        filters = [p["weight"][:, 0, last - back] for back in range(self.length)]

        def advance(newest: Array, memory: Memory) -> tuple[Array, Memory]:
            y = ops.scale_columns(newest, filters[0], p.get("bias"))
            for back, value in enumerate(memory, start=1):
                y = y + ops.scale_columns(value, filters[back])
            return y, (newest, *memory[:-1])

        return step.recur(ops, z, before, advance)

    def all_tokens(
        self, ops: Backend, p: Any, z: Array, step: Step, before: Memory
    ) -> tuple[Array, Memory]:
        """The convolution of z (B, T, C), all tokens of a row together, and the memory after it."""
        real = step.real_on(ops)
        if real is not None:
            z = ops.where(real, z, ops.zeros(tuple(z.shape)))
        T = z.shape[1]
        last = self.length - 1
        inputs = ops.concat([ops.stack(before[::-1], axis=1), z], axis=1)  # (B, length - 1 + T, C)
        y = ops.scale_columns(inputs[:, last:], p["weight"][:, 0, last], p.get("bias"))
        for back in range(1, self.length):
            first = last - back
            y = y + ops.scale_columns(inputs[:, first : first + T], p["weight"][:, 0, first])
        end = inputs.shape[1]
        return y, tuple(inputs[:, end - back] for back in range(1, self.length))
