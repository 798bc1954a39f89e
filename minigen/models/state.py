"""What a model remembers of the tokens it has read: keys and values, or recurrent state, behind one interface.

A state is changed by `forward`, which appends. Nothing keeps an older one: undo is `rewind`, a second line of thought
is `fork`. Saving is in `state_file.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from minigen.backends.base import NUMBER_BYTES, Array, Backend, Quantized
from minigen.backends.memory import check_memory
from minigen.backends.quantized import Held, arrays_of, each, group_for, tokens
from minigen.errors import ContextError

Starts = npt.NDArray[np.int64]


class State(Protocol):
    """`length` tokens of `batch` rows (padding counted), with room for `capacity`, or without bound if that is None."""

    length: int
    starts: Starts | None

    @property
    def kind(self) -> str: ...

    @property
    def batch(self) -> int: ...

    @property
    def capacity(self) -> int | None: ...

    @property
    def buffers(self) -> Sequence[Held]:
        """What a pass writes into in place, so that a pass that was recorded finds it again where it lay. Empty where
        each pass makes the state anew, which no recorded pass can follow."""
        ...

    def rewind(self, length: int) -> int:
        """Forgets what came after the first `length` tokens and returns the length it now has.

        A cache goes back exactly. A recurrent state goes back to the newest copy it kept at or before `length`, so
        the caller reads the tokens from there again. Raises ValueError for a length that it never had.
        """
        ...

    def fork(self, ops: Backend, rows: int | Sequence[int]) -> State:
        """A state of its own with the given rows of this one, in that order; a number n: each row n times."""
        ...

    def reserve(self, ops: Backend, length: int) -> None:
        """Makes room for `length` tokens in all."""
        ...

    def arrays(self) -> dict[str, Array]:
        """What is worth saving, by name."""
        ...

    def shapes(self, length: int) -> dict[str, tuple[int, ...]]:
        """The shapes that `arrays` would have with so many tokens."""
        ...

    def restore(self, arrays: Mapping[str, Array], length: int) -> None:
        """Takes over what `arrays` gave of a state with this length."""
        ...


def check_rewind(state: State, length: int) -> None:
    if not 0 <= length <= state.length:
        raise ValueError(f"cannot rewind to {length} tokens: the state has {state.length}")


def rows_of(rows: int | Sequence[int], batch: int) -> list[int]:
    """The row numbers that `fork` means: a number n means each row n times, side by side."""
    return [row for row in range(batch) for _ in range(rows)] if isinstance(rows, int) else list(rows)


class KVLayer:
    """One layer's view of the cache, as attention sees it."""

    def __init__(self, cache: KVCache, index: int) -> None:
        self.cache, self.index = cache, index

    def append(self, ops: Backend, k: Array, v: Array) -> tuple[Held, Held]:
        """k and v (B, G, T, D) of the new tokens -> those of all tokens so far (B, G, S, D)."""
        cache, i, end = self.cache, self.index, self.cache.length + k.shape[2]
        cache.k[i], cache.v[i] = ops.write((cache.k[i], cache.v[i]), (k, v), cache.length)
        return tokens(cache.k[i], 0, end), tokens(cache.v[i], 0, end)


class KVCache:
    """Keys and values of every layer in buffers (B, G, capacity, D) that are allocated once and written in place.

    Quantized buffers hold 8 or 4 bits a number: what is appended is rounded once, as it comes, and every token has
    groups of its own, so that a text says the same whether it is rewound, forked, or read anew in the same passes.
    """

    def __init__(self, k: list[Held], v: list[Held], length: int, starts: Starts | None = None) -> None:
        self.k, self.v, self.length, self.starts = k, v, length, starts

    @classmethod
    def empty(
        cls,
        ops: Backend,
        sizes: Sequence[tuple[int, int]],
        batch: int,
        capacity: int,
        starts: Starts | None = None,
        bits: int | None = None,
    ) -> KVCache:
        """`sizes` has (G, D) for each layer; `bits` are those of a number, None for the model's dtype."""
        shapes = [(batch, G, capacity, D) for G, D in sizes]
        wanted = sum(2 * math.prod(shape) * number_bytes(ops, shape[3], bits) for shape in shapes)
        check_memory(round(wanted), ops.total_memory())
        k, v = ([empty_buffer(ops, shape, bits) for shape in shapes] for _ in range(2))
        return cls(k, v, 0, starts)

    @property
    def bits(self) -> int | None:
        """Of a number where it is quantized."""
        return self.k[0].bits if isinstance(self.k[0], Quantized) else None

    @property
    def kind(self) -> str:
        return f"kv{self.bits or ''}"

    @property
    def batch(self) -> int:
        return int(self.k[0].shape[0])

    @property
    def capacity(self) -> int:
        return int(self.k[0].shape[2])

    @property
    def buffers(self) -> list[Held]:
        return [*self.k, *self.v]

    def layer(self, index: int) -> KVLayer:
        return KVLayer(self, index)

    def check_room(self, new: int) -> None:
        """Raises ContextError unless `new` more tokens fit."""
        if self.length + new > self.capacity:
            raise ContextError(
                f"{new} more tokens do not fit after {self.length}: the state has room for {self.capacity}"
            )

    def rewind(self, length: int) -> int:
        check_rewind(self, length)
        self.length = length  # what lies beyond is never seen: views end at the length
        return length

    def fork(self, ops: Backend, rows: int | Sequence[int]) -> KVCache:
        chosen = rows_of(rows, self.batch)
        starts = None if self.starts is None else self.starts[chosen]
        k, v = ([each(lambda part: ops.take(part, chosen, axis=0), x) for x in side] for side in (self.k, self.v))
        return KVCache(k, v, self.length, starts)

    def reserve(self, ops: Backend, length: int) -> None:
        if length <= self.capacity:
            return
        for side in (self.k, self.v):
            for i, old in enumerate(side):
                B, G, S, D = old.shape
                more = empty_buffer(ops, (B, G, length - S, D), self.bits)
                side[i] = each(lambda *parts: ops.concat(parts, axis=2), old, more)

    def arrays(self) -> dict[str, Array]:
        return {name: part[:, :, : self.length] for name, part in self.parts().items()}

    def shapes(self, length: int) -> dict[str, tuple[int, ...]]:
        return {name: (B, G, length, D) for name, part in self.parts().items() for B, G, _, D in (part.shape,)}

    def restore(self, arrays: Mapping[str, Array], length: int) -> None:
        def found(name: str, old: Held) -> Held:
            names = iter(names_of(name, old))
            return each(lambda _: arrays[next(names)], old)

        self.k = [found(f"{i}.k", old) for i, old in enumerate(self.k)]
        self.v = [found(f"{i}.v", old) for i, old in enumerate(self.v)]
        self.length = length

    def parts(self) -> dict[str, Array]:
        """Every array of the buffers, as it is called in files."""
        buffers = {f"{i}.{side}": x for side, xs in (("k", self.k), ("v", self.v)) for i, x in enumerate(xs)}
        return {
            name: part
            for buffer, x in buffers.items()
            for name, part in zip(names_of(buffer, x), arrays_of(x), strict=True)
        }


def names_of(buffer: str, x: Held) -> tuple[str, ...]:
    """What the arrays of a buffer are called: a quantized one has codes, scales and biases."""
    return (buffer, f"{buffer}.scales", f"{buffer}.biases") if isinstance(x, Quantized) else (buffer,)


def number_bytes(ops: Backend, width: int, bits: int | None) -> float:
    """Bytes that a number of a head of this width takes in the cache, with its share of scales and biases."""
    size = NUMBER_BYTES[ops.dtype]
    return size if bits is None else bits / 8 + 2 * size / group_for(width)


def empty_buffer(ops: Backend, shape: tuple[int, int, int, int], bits: int | None) -> Held:
    """Zeros (B, G, capacity, D)."""
    if bits is None:
        return ops.zeros(shape)
    *outer, D = shape
    group = group_for(D)
    scales, biases = (ops.zeros((*outer, D // group)) for _ in range(2))
    return Quantized(ops.zeros((*outer, D * bits // 32), "uint32"), scales, biases, group, bits)
