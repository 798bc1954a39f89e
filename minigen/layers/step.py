"""What every layer of one forward pass shares: where the new tokens stand, and who may look at whom."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.backends.base import Array, Backend
from minigen.backends.quantized import Held, tokens

Turn = Callable[[Array, "Step"], Array]  # rotates queries or keys (B, heads, T, D) to where a step says they stand


def pick_steps(ops: Backend, x: Array, at: Sequence[int]) -> Array:
    """x (B, T, C) -> (B, len(at), C): the tokens whose logits are wanted; (-1,) is the last, and costs no copy."""
    return x[:, -1:] if tuple(at) == (-1,) else ops.take(x, at, axis=1)


class Step:
    """T new tokens after `length` old ones, in rows that may be padded on the left.

    `starts` (B,) is the index of each row's first real token, or None where no row is padded. Positions count from
    there, so a padded row computes what it would compute alone.
    """

    def __init__(self, length: int, T: int, starts: npt.NDArray[np.int64] | None = None) -> None:
        self.length = length
        self.T = T
        self.starts = starts
        self._shared: dict[Hashable, Any] = {}

    def share(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """`make()`, once a pass for each key: layers with the same mask or the same rotation share it."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """(B or 1, T): the position of each new token in its own row; padding stands at 0."""
        index = np.arange(self.length, self.length + self.T)[None]
        return index if self.starts is None else np.maximum(index - self.starts[:, None], 0)

    def real(self) -> npt.NDArray[np.bool_] | None:
        """(B, T): false where a new token is padding; None where none is."""
        if self.starts is None or self.length >= self.starts.max():
            return None
        return np.arange(self.length, self.length + self.T)[None] >= self.starts[:, None]

    def keys_needed(self, window: int | None) -> int:
        """How many of the newest keys any new token can see."""
        total = self.length + self.T
        return total if window is None else min(total, window + self.T - 1)

    def attend(self, ops: Backend, q: Array, k: Held, v: Held, turn: Turn, window: int | None, scale: float) -> Array:
        """What the new tokens find: q (B, H, T, D), k and v (B, G, S, D) of all tokens so far -> (B, H, T, D).

        The keys have been turned to where they stand, the queries not yet.
        """
        first = k.shape[2] - self.keys_needed(window)
        if first > 0:
            k, v = tokens(k, first), tokens(v, first)
        return ops.attention(turn(q, self), k, v, scale, self.mask(ops, window))

    def mask(self, ops: Backend, window: int | None) -> Array | str | None:
        """The attention mask over the newest `keys_needed(window)` keys, as `Backend.attention` takes it."""
        return self.share(("mask", window), lambda: self._mask(ops, window))

    def _mask(self, ops: Backend, window: int | None) -> Array | str | None:
        S = self.keys_needed(window)
        total = self.length + self.T
        key = np.arange(total - S, total)[None]  # (1, S)
        padded = self.starts is not None and int(self.starts.max()) > total - S
        if not padded and (window is None or total <= window or self.T == 1):
            return None if self.T == 1 else "causal"
        query = np.arange(self.length, total)[:, None]  # (T, 1)
        seen = key <= query
        if window is not None:
            seen &= key > query - window
        if not padded:
            return ops.asarray(seen[None, None])
        assert self.starts is not None
        rows = seen & (key >= self.starts[:, None, None])  # (B, T, S)
        # Padding looks at itself alone: a row that sees nothing would be NaN, and NaN spreads through the values.
        return ops.asarray((rows | (key == query))[:, None])


class AnyStep(Step):
    """T new tokens at whatever position before `capacity`, for a backend that records the pass to run it many times.

    `positions` are all there are, so what depends on them comes as tables; the mask that `Backend.attention` gets is
    the window, or None.
    """

    def __init__(self, T: int, capacity: int) -> None:
        super().__init__(0, T)
        self.capacity = capacity

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        return np.arange(self.capacity)[None]

    def attend(self, ops: Backend, q: Array, k: Held, v: Held, turn: Turn, window: int | None, scale: float) -> Array:
        return ops.attention(turn(q, self), k, v, scale, window)


class BranchStep(Step):
    """T new tokens of one row that continue several texts at once: each sees its own text and no other.

    `at` (S,) is the position of every token in its text, the new ones last; `seen` (T, S) says who sees whom.
    """

    def __init__(self, at: npt.NDArray[np.int64], seen: npt.NDArray[np.bool_]) -> None:
        T, S = seen.shape
        super().__init__(S - T, T)
        self.at, self.seen = at, seen

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        return self.at[None, self.length :]

    def keys_needed(self, window: int | None) -> int:
        return self.length + self.T  # the newest in the row are not the newest in each text

    def _mask(self, ops: Backend, window: int | None) -> Array | str | None:
        seen = self.seen
        if window is not None:
            seen = seen & (self.at[None] > self.positions.T - window)
        return ops.asarray(seen[None, None])
