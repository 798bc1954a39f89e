"""Attention sinks (Xiao et al. 2023): text beyond the context of a decoder.

Past its context, a decoder sees the first few tokens and the newest ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from minigen.backends.base import Array, Backend
from minigen.backends.operations import dequantized
from minigen.backends.quantized import Held, tokens
from minigen.layers.step import Rotate, Step


@dataclass(frozen=True)
class Sinks:
    """Token t sees the first `count` tokens and the newest `window - count`, itself included.

    While t < window, that is every token before it.

    As in the paper, positions are those within the rolling window. Between the newest tokens only
    the distance matters, so they keep their positions in the text; relative to the sinks, no token
    stands beyond the end of the window. What a token sees depends on the text alone, not on how it
    was divided into passes, so the cache keeps every key and can be rewound.
    """

    count: int
    window: int


class FixedPositions(Step):
    """One row of tokens that are rotated as if they stood at `positions` (1, T)."""

    def __init__(self, positions: npt.NDArray[np.int64]) -> None:
        super().__init__(0, positions.shape[1])
        self._positions = positions

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        return self._positions


class SinkStep(Step):
    """T new tokens after `length` old ones, the last of them past the window; no row is padded.

    A layer with a sliding window of its own that is shorter than that of the sinks is unaffected:
    it was trained without sinks, and what it sees is bounded already.
    """

    def __init__(self, length: int, T: int, sinks: Sinks) -> None:
        super().__init__(length, T)
        self.sinks = sinks
        # Where the queries stand relative to the sinks, and how far the sinks are moved to meet a
        # query that keeps its own position.
        self.to_sinks = FixedPositions(np.minimum(self.positions, sinks.window - 1))
        self.back = FixedPositions(np.array([[1 - sinks.window]]))
        # The oldest key that counts as one of the newest.
        self.first = max(sinks.count, length + 1 - (sinks.window - sinks.count))

    def rolls(self, window: int | None) -> bool:
        """Whether a layer with this window of its own looks at the sinks."""
        return window is None or window >= self.sinks.window

    def attend(
        self,
        ops: Backend,
        q: Array,
        k: Held,
        v: Held,
        rotate: Rotate,
        window: int | None,
        scale: float,
    ) -> Array:
        """As `Step.attend`, with two positions for each query.

        One is its own, for the newest keys; the other is the one relative to the sinks.
        """
        if not self.rolls(window):
            return super().attend(ops, q, k, v, rotate, window, scale)
        sinks, newest = self.visible(ops, k)
        v = ops.concat(self.visible(ops, v), axis=2)
        if self.T == 1:
            # The query keeps its position, and the sinks are moved so that each has its distance to
            # it. They are rotated twice: the first rotation is exactly the query's own, so no error
            # grows with the length of the text.
            moved_sinks = rotate(rotate(sinks, self), self.back)
            k = ops.concat([moved_sinks, newest], axis=2)
            return ops.attention(rotate(q, self), k, v, scale, None)
        # Several queries: each is rotated for both of its positions, and the two results form one
        # head of double width. A key is zero in the half that is not meant for it. Values are
        # padded to the same width, because kernels expect one width.
        q = ops.concat([rotate(q, self), rotate(q, self.to_sinks)], axis=-1)
        near = ops.concat([ops.zeros(sinks.shape), newest], axis=2)
        far = ops.concat([sinks, ops.zeros(newest.shape)], axis=2)
        k = ops.concat([near, far], axis=-1)
        padded_v = ops.concat([v, ops.zeros(v.shape)], axis=-1)
        y = ops.attention(q, k, padded_v, scale, self.mask(ops, window))
        return y[..., : v.shape[-1]]

    def visible(self, ops: Backend, x: Held) -> tuple[Array, Array]:
        """Keys or values (B, G, S, D) -> those of the sinks, and those of the newest tokens."""
        sinks = tokens(x, 0, self.sinks.count)
        newest = tokens(x, self.first)
        return dequantized(ops, sinks), dequantized(ops, newest)

    def _mask(self, ops: Backend, window: int | None) -> Array | str | None:
        """The mask over the sinks and the newest keys."""
        if not self.rolls(window):
            return super()._mask(ops, window)
        count = self.sinks.count
        newest = np.arange(self.first, self.length + self.T)
        key = np.concatenate([np.arange(count), newest])[None]  # (1, S)
        query = self.positions.T  # (T, 1)
        is_sink = key < count
        is_recent = key > query - (self.sinks.window - count)
        seen = (is_sink | is_recent) & (key <= query)
        return ops.asarray(seen[None, None])
