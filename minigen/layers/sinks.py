"""Attention sinks (Xiao et al. 2023): past its context a decoder looks at the first tokens and the newest ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from minigen.backends.base import Array, Backend, plain
from minigen.backends.quantized import Held, tokens
from minigen.layers.step import Step, Turn


@dataclass(frozen=True)
class Sinks:
    """Token t sees the first `count` tokens and the `window - count` newest, itself included: all, while t < window.

    Positions are those in the rolling window, as in the paper: the newest tokens stand where they are, as only their
    distance tells, and towards the sinks a token stands at the window's end at most. What is seen follows from the
    tokens alone, not from how they were cut into passes, so the cache keeps every key, and can be rewound.
    """

    count: int
    window: int


class Placed(Step):
    """One row of tokens that are turned as if they stood at `positions` (1, T)."""

    def __init__(self, positions: npt.NDArray[np.int64]) -> None:
        super().__init__(0, positions.shape[1])
        self._positions = positions

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        return self._positions


class SinkStep(Step):
    """T new tokens after `length` old ones, the last of them past the window; no row is padded.

    A layer with a sliding window of its own, shorter than that of the sinks, stays as it is: it was trained without
    them, and has an end of what it sees already.
    """

    def __init__(self, length: int, T: int, sinks: Sinks) -> None:
        super().__init__(length, T)
        self.sinks = sinks
        self.to_sinks = Placed(np.minimum(self.positions, sinks.window - 1))
        self.back = Placed(np.array([[1 - sinks.window]]))

        self.first = max(sinks.count, length + 1 - (sinks.window - sinks.count))  # the oldest key seen as a new one

    def rolls(self, window: int | None) -> bool:
        """Whether a layer with this window of its own looks at sinks."""
        return window is None or window >= self.sinks.window

    def attend(self, ops: Backend, q: Array, k: Held, v: Held, turn: Turn, window: int | None, scale: float) -> Array:
        """As Step's, with two places for each query: its own for the newest keys, and that towards the sinks."""
        if not self.rolls(window):
            return super().attend(ops, q, k, v, turn, window, scale)
        count, first = self.sinks.count, self.first
        sinks, newest = (plain(ops, tokens(k, *part)) for part in ((0, count), (first,)))
        v = ops.concat([plain(ops, tokens(v, *part)) for part in ((0, count), (first,))], axis=2)
        if self.T == 1:
            # The one query stays where it is and the sinks come along with it, each at its distance. Two turns, as the
            # first is then the query's own to the bit, and no error grows with the text.
            k = ops.concat([turn(turn(sinks, self), self.back), newest], axis=2)
            return ops.attention(turn(q, self), k, v, scale, None)
        # Side by side the query as it is turned for either place; a key has zeros where the half is not for it. Values
        # are widened with them, as kernels are made for one width.
        q = ops.concat([turn(q, self), turn(q, self.to_sinks)], axis=-1)
        near = ops.concat([ops.zeros(sinks.shape), newest], axis=2)
        far = ops.concat([sinks, ops.zeros(newest.shape)], axis=2)
        k, wide = ops.concat([near, far], axis=-1), ops.concat([v, ops.zeros(v.shape)], axis=-1)
        return ops.attention(q, k, wide, scale, self.mask(ops, window))[..., : v.shape[-1]]

    def _mask(self, ops: Backend, window: int | None) -> Array | str | None:
        """Over the sinks and the newest keys."""
        if not self.rolls(window):
            return super()._mask(ops, window)
        count, size = self.sinks.count, self.sinks.window
        key = np.concatenate([np.arange(count), np.arange(self.first, self.length + self.T)])[None]  # (1, S)
        query = self.positions.T  # (T, 1)
        return ops.asarray((((key < count) | (key > query - (size - count))) & (key <= query))[None, None])
