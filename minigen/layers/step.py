"""What all layers share during one forward pass: where the new tokens stand, and what they see."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.backends.base import Array, Backend
from minigen.backends.quantized import Held, tokens
from minigen.layers.slot import LayerSlots, LentSlot

# Rotates queries or keys (B, heads, T, D) to the positions of a step.
Rotate = Callable[[Array, "Step"], Array]
# What a recurrence carries from token to token, each (B, ...).
Memory = tuple[Array, ...]
# One token of a recurrence: x (B, C) and the memory before -> output (B, C') and the memory after.
Advance = Callable[[Array, Memory], tuple[Array, Memory]]


def select_tokens(ops: Backend, x: Array, at: Sequence[int]) -> Array:
    """x (B, T, C) -> (B, len(at), C): the tokens `at` these indices. (-1,) costs no copy."""
    if tuple(at) == (-1,):
        return x[:, -1:]
    return ops.take(x, at, axis=1)


def where_real(ops: Backend, real: Array, new: Array, old: Array) -> Array:
    """`new` (B, ...) in the rows where `real` (B, 1) is true, `old` in the others."""
    return ops.where(real.reshape(-1, *[1] * (len(new.shape) - 1)), new, old)


def remembered(
    ops: Backend, slots: LayerSlots | None, names: Sequence[str], shape: tuple[int, int]
) -> Memory:
    """What the slots `names` have before a pass, each of `shape` (B, C); zeros without slots."""
    if slots is None:
        return (ops.zeros(shape),) * len(names)
    return tuple(slots.get(ops, name) for name in names)


class Step:
    """One pass over T new tokens after `length` old ones.

    Rows may be padded on the left. `starts` (B,) is the index of the first real token of each
    row, or None where no row is padded. Positions count from there, so a padded row computes the
    same numbers as it would alone.

    Attributes:
        layer: The index of the layer that computes now.
        lenders: The layers whose keys and values later layers borrow.
    """

    def __init__(self, length: int, T: int, starts: npt.NDArray[np.int64] | None = None) -> None:
        self.length = length
        self.T = T
        self.starts = starts
        self.layer = 0
        self.lenders: frozenset[int] = frozenset()
        self._lent: dict[tuple[int, str], Held] = {}
        self._shared: dict[Hashable, Any] = {}

    def share(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """The result of `compute()`, called once per pass and key.

        Layers with the same mask or the same rotation share it this way.
        """
        if key not in self._shared:
            self._shared[key] = compute()
        return self._shared[key]

    def lend(self, name: str, entries: Held) -> None:
        """Keeps the entries (B, G, S, D) of a slot for the layers that borrow it."""
        if self.layer in self.lenders:
            self._lent[self.layer, name] = entries

    def borrow(self, slot: LentSlot) -> Held:
        """The entries (B, G, S, D) that an earlier layer has lent."""
        return self._lent[slot.layer, slot.name]

    @property
    def sequential(self) -> bool:
        """Whether each new token of a row follows the one before it."""
        return True

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """(B or 1, T): the position of each new token in its own row. Padding has position 0."""
        index = np.arange(self.length, self.length + self.T)[None]
        if self.starts is not None:
            index = np.maximum(index - self.starts[:, None], 0)
        return index

    def real(self) -> npt.NDArray[np.bool_] | None:
        """(B, T), false where a new token is padding; None where none is."""
        if self.starts is None or self.length >= self.starts.max():
            return None
        return np.arange(self.length, self.length + self.T)[None] >= self.starts[:, None]

    def real_on(self, ops: Backend) -> Array | None:
        """`real` on the device, (B, T, 1), computed once per pass."""

        def compute() -> Array | None:
            mask = self.real()
            if mask is None:
                return None
            return ops.asarray(mask[:, :, None])

        return self.share("real", compute)

    def keys_needed(self, window: int | None) -> int:
        """How many of the newest keys the new tokens together can see."""
        total = self.length + self.T
        if window is None:
            return total
        return min(total, window + self.T - 1)

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
        """Attention of the new tokens over all tokens so far.

        Args:
            ops: The operations of a backend.
            q: (B, H, T, D), the queries of the new tokens, not rotated yet.
            k: (B, G, S, D), the keys of all tokens so far, rotated.
            v: (B, G, S, D), their values.
            rotate: Rotates queries to the positions of a step.
            window: A token sees itself and the `window - 1` tokens before it; None: all before it.
            scale: What dot products are multiplied by.

        Returns:
            (B, H, T, D).
        """
        first = k.shape[2] - self.keys_needed(window)
        if first > 0:
            k, v = tokens(k, first), tokens(v, first)
        return ops.attention(rotate(q, self), k, v, scale, self.mask(ops, window))

    def recur(
        self, ops: Backend, x: Array, before: Memory, advance: Advance
    ) -> tuple[Array, Memory]:
        """A recurrence over the new tokens. Padding leaves the memory as it was.

        Args:
            ops: The operations of a backend.
            x: (B, T, C), the inputs.
            before: The memory before the first new token.
            advance: One step of the recurrence.

        Returns:
            The outputs (B, T, C'), and the memory after the last new token.
        """
        real = self.real_on(ops)
        outputs = []
        # Split, not indexed: the gradient of an index is an array over all T tokens, and T of those
        # take time quadratic in T.
        for t, token in enumerate(ops.split(x, [1] * self.T, axis=1)):
            output, after = advance(token.reshape(x.shape[0], -1), before)
            if real is not None:
                pairs = zip(after, before, strict=True)
                after = tuple(where_real(ops, real[:, t], new, old) for new, old in pairs)
            outputs.append(output)
            before = after
        return ops.stack(outputs, axis=1), before

    def mask(self, ops: Backend, window: int | None) -> Array | str | None:
        """The mask over the newest `keys_needed(window)` keys, as `Backend.attention` takes it.

        It is computed once per pass and window.
        """
        return self.share(("mask", window), lambda: self._mask(ops, window))

    def _mask(self, ops: Backend, window: int | None) -> Array | str | None:
        S = self.keys_needed(window)
        total = self.length + self.T
        key = np.arange(total - S, total)[None]  # (1, S)
        padded = self.starts is not None and int(self.starts.max()) > total - S
        sees_all_before = window is None or total <= window
        if self.T == 1 and not padded:
            return None
        if sees_all_before and not padded:
            return "causal"
        query = np.arange(self.length, total)[:, None]  # (T, 1)
        seen = key <= query
        if window is not None:
            seen &= key > query - window
        if not padded:
            return ops.asarray(seen[None, None])
        assert self.starts is not None
        rows = seen & (key >= self.starts[:, None, None])  # (B, T, S)
        # Padding sees itself: a row that sees nothing would be NaN, and NaN spreads through values.
        return ops.asarray((rows | (key == query))[:, None])


class AnyStep(Step):
    """T new tokens at any position below `capacity`: a pass that a backend records and replays.

    `positions` are all there are, so what depends on them becomes tables. The mask that
    `Backend.attention` gets is the window, or None.
    """

    def __init__(self, T: int, capacity: int) -> None:
        super().__init__(0, T)
        self.capacity = capacity

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        return np.arange(self.capacity)[None]

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
        return ops.attention(rotate(q, self), k, v, scale, window)
