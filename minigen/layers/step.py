"""What every layer of one forward pass shares: where the new tokens stand, and who may look at whom."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.backends.base import Array, Backend
from minigen.backends.quantized import Held, tokens
from minigen.layers.slot import LentSlot

Turn = Callable[[Array, "Step"], Array]  # rotates queries or keys (B, heads, T, D) to where a step says they stand
Memory = tuple[Array, ...]  # what a recurrence carries from token to token, each (B, ...)
Advance = Callable[[Array, Memory], tuple[Array, Memory]]  # (x of one token (B, C), before) -> (output (B, C'), after)


def pick_steps(ops: Backend, x: Array, at: Sequence[int]) -> Array:
    """x (B, T, C) -> (B, len(at), C): the tokens whose logits are wanted; (-1,) is the last, and costs no copy."""
    return x[:, -1:] if tuple(at) == (-1,) else ops.take(x, at, axis=1)


def kept(ops: Backend, real: Array, new: Array, old: Array) -> Array:
    """`new` (B, ...) in the rows where `real` (B, 1) is true, else `old`."""
    return ops.where(real.reshape(-1, *[1] * (len(new.shape) - 1)), new, old)


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
        self.layer = 0  # that computes now
        self.lenders: frozenset[int] = frozenset()  # layers whose keys and values later ones look at
        self.lent: dict[tuple[int, str], Held] = {}

    def share(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """`make()`, once a pass for each key: layers with the same mask or the same rotation share it."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def lend(self, name: str, held: Held) -> None:
        """Keeps what this layer has of all tokens for the layers that borrow it."""
        if self.layer in self.lenders:
            self.lent[self.layer, name] = held

    def borrow(self, slot: LentSlot) -> Held:
        """What an earlier layer has lent."""
        return self.lent[slot.layer, slot.name]

    @property
    def in_line(self) -> bool:
        """Whether each new token of a row follows the one before it."""
        return True

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

    def real_on(self, ops: Backend) -> Array | None:
        """`real` on the device, (B, T, 1)."""
        mask = self.real()
        return None if mask is None else ops.asarray(mask[:, :, None])

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

    def recur(self, ops: Backend, x: Array, before: Memory, advance: Advance) -> tuple[Array, Memory]:
        """A recurrence over the new tokens: x (B, T, C) and what is remembered -> outputs (B, T, C') and what is then.

        Padding leaves what is remembered as it was.
        """
        real = self.share("real", lambda: self.real_on(ops))
        outputs = []
        # Split, not indexed: the gradient of an index is an array of all steps, and T of those are quadratic in time.
        for t, piece in enumerate(ops.split(x, [1] * self.T, axis=1)):
            output, after = advance(piece.reshape(x.shape[0], -1), before)
            if real is not None:
                after = tuple(kept(ops, real[:, t], new, old) for new, old in zip(after, before, strict=True))
            outputs.append(output)
            before = after
        return ops.stack(outputs, axis=1), before

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
    `parents` (T,) are what the new ones follow: 0 the text that all share, 1 + i the i-th of the tokens after it.
    """

    def __init__(
        self, at: npt.NDArray[np.int64], seen: npt.NDArray[np.bool_] | None, parents: Sequence[int], older: int
    ) -> None:
        """`older` of the tokens after the shared text were there before; `seen` is None where nothing attends."""
        T, S = len(parents), len(at)
        super().__init__(S - T, T)
        self.at, self.seen, self.parents, self.older = at, seen, parents, older

    @property
    def in_line(self) -> bool:
        return False

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        return self.at[None, self.length :]

    def attend(self, ops: Backend, q: Array, k: Held, v: Held, turn: Turn, window: int | None, scale: float) -> Array:
        # The newest keys in the row are not the newest of each text, so all of them are looked at.
        mask = self.share(("mask", window, k.shape[2]), lambda: self.mask_over(ops, window, k.shape[2]))
        return ops.attention(turn(q, self), k, v, scale, mask)

    def mask_over(self, ops: Backend, window: int | None, keys: int) -> Array:
        """The mask over the newest `keys` keys of the row."""
        assert self.seen is not None
        seen, at = self.seen[:, -keys:], self.at[None, -keys:]
        if window is not None:
            seen = seen & (at > self.positions.T - window)
        return ops.asarray(seen[None, None])

    def levels(self) -> Iterator[list[int]]:
        """The new tokens by generations, from 0: first those that follow what was there, then their children."""
        first = 1 + self.older
        depth: list[int] = []
        for parent in self.parents:
            depth.append(0 if parent < first else 1 + depth[parent - first])
        for level in range(max(depth, default=-1) + 1):
            yield [token for token, own in enumerate(depth) if own == level]

    def recur(self, ops: Backend, x: Array, before: Memory, advance: Advance) -> tuple[Array, Memory]:
        """As Step's, where `before` (1 + older, ...) is what is remembered after the shared text and each token after
        it, and what is returned (T, ...) that after each new token."""
        inputs = x[0]
        known = list(before)
        rows = {row: row for row in range(1 + self.older)}  # of a parent in `known`
        outputs, order = [], []
        for level in self.levels():
            memory = tuple(ops.take(part, [rows[self.parents[i]] for i in level], axis=0) for part in known)
            output, after = advance(ops.take(inputs, level, axis=0), memory)
            for token in level:
                rows[1 + self.older + token] = len(rows)  # numbered as they come
            outputs.append(output)
            order += level
            known = [ops.concat([part, new], axis=0) for part, new in zip(known, after, strict=True)]
        back = [order.index(token) for token in range(self.T)]
        found = ops.take(ops.concat(outputs, axis=0), back, axis=0)[None]
        return found, tuple(ops.take(part, [1 + self.older + place for place in back], axis=0) for part in known)
