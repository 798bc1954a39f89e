"""What a model remembers of the tokens it has read: keys and values, or recurrent state, behind one interface.

A state is changed by `forward`, which appends. Nothing keeps an older one: undo is `rewind`, a second line of thought
is `fork`. Saving is in `state_file.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from minigen.backends import check_memory
from minigen.backends.base import Array, Backend
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

    def append(self, ops: Backend, k: Array, v: Array) -> tuple[Array, Array]:
        """k and v (B, G, T, D) of the new tokens -> those of all tokens so far (B, G, S, D)."""
        cache, i, end = self.cache, self.index, self.cache.length + k.shape[2]
        cache.k[i] = ops.write(cache.k[i], k, cache.length)
        cache.v[i] = ops.write(cache.v[i], v, cache.length)
        return cache.k[i][:, :, :end], cache.v[i][:, :, :end]


class KVCache:
    """Keys and values of every layer in buffers (B, G, capacity, D) that are allocated once and written in place."""

    kind = "kv"

    def __init__(self, k: list[Array], v: list[Array], length: int, starts: Starts | None = None) -> None:
        self.k, self.v, self.length, self.starts = k, v, length, starts

    @classmethod
    def empty(
        cls,
        ops: Backend,
        sizes: Sequence[tuple[int, int]],
        batch: int,
        capacity: int,
        starts: Starts | None = None,
    ) -> KVCache:
        """`sizes` has (G, D) for each layer."""
        shapes = [(batch, G, capacity, D) for G, D in sizes]
        wanted = sum(2 * math.prod(shape) for shape in shapes) * (4 if ops.dtype == "float32" else 2)
        check_memory(wanted, ops.total_memory())
        return cls([ops.zeros(s) for s in shapes], [ops.zeros(s) for s in shapes], 0, starts)

    @property
    def batch(self) -> int:
        return int(self.k[0].shape[0])

    @property
    def capacity(self) -> int:
        return int(self.k[0].shape[2])

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
        k, v = ([ops.take(x, chosen, axis=0) for x in side] for side in (self.k, self.v))
        return KVCache(k, v, self.length, starts)

    def reserve(self, ops: Backend, length: int) -> None:
        if length <= self.capacity:
            return
        for side in (self.k, self.v):
            for i, old in enumerate(side):
                B, G, _, D = old.shape
                side[i] = ops.concat([old, ops.zeros((B, G, length - old.shape[2], D))], axis=2)

    def arrays(self) -> dict[str, Array]:
        pairs: dict[str, Any] = {}
        for i, (k, v) in enumerate(zip(self.k, self.v, strict=True)):
            pairs[f"{i}.k"], pairs[f"{i}.v"] = k[:, :, : self.length], v[:, :, : self.length]
        return pairs

    def shapes(self, length: int) -> dict[str, tuple[int, ...]]:
        pairs = {f"{i}.{name}": x.shape for name, side in (("k", self.k), ("v", self.v)) for i, x in enumerate(side)}
        return {name: (B, G, length, D) for name, (B, G, _, D) in pairs.items()}

    def restore(self, arrays: Mapping[str, Array], length: int) -> None:
        layers = range(len(self.k))
        self.k, self.v = [arrays[f"{i}.k"] for i in layers], [arrays[f"{i}.v"] for i in layers]
        self.length = length
