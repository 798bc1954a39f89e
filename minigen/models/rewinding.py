"""How a state goes back to a shorter text."""

from __future__ import annotations

from minigen.backends.base import Array, Backend
from minigen.models.buffers import Key, Snapshot, thin_out
from minigen.models.contents import StateContents

SNAPSHOT_EVERY = 64  # tokens between snapshots of what is overwritten


class RewindableContents(StateContents):
    """The contents of a state, and how far back they can go.

    Slots of all tokens go back to any length, rings by SLACK tokens, and what is overwritten to
    snapshots only. Snapshots are taken at the beginning, after every pass of several tokens and
    every 64 tokens between, and thinned out the further back they are.

    Attributes:
        ops: The operations of a backend.
        longest: The greatest length so far. In a ring, entries may be gone that it would have room
            for at the current length.
        snapshots: The snapshots of what is overwritten, the oldest first.
        operands: During a pass, what blocks read from slots without time.
        pending: During a pass, what blocks put there.
    """

    ops: Backend
    longest: int
    snapshots: list[Snapshot]
    operands: dict[Key, Array]
    pending: dict[Key, Array]

    @property
    def goes_back_anywhere(self) -> bool:
        """Whether every slot keeps all tokens, so that any length is `reachable`."""
        return not self.overwritten and not self.rings

    def mark(self) -> None:
        """Makes the current length reachable later, as far as rings go back."""
        if not self.snapshots or self.snapshots[-1].length != self.length:
            self.take_snapshot()

    def take_snapshot(self) -> None:
        """Keeps the current values of overwritten slots."""
        if not self.overwritten:
            return
        values = {key: self.ops.copy(self.contents[key]) for key in self.overwritten}
        self.snapshots = thin_out([*self.snapshots, Snapshot(self.length, values)])

    def reachable(self, length: int) -> int:
        """The greatest length up to `length` that `rewind` can go to. Changes nothing."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot rewind to {length} tokens: the state has {self.length}")
        candidates = [length]
        if self.overwritten and length < self.length:
            candidates = [taken.length for taken in self.snapshots]
        greatest = 0
        for candidate in candidates:
            if candidate <= length and self.rings_reach(candidate):
                greatest = max(greatest, candidate)
        return greatest

    def rings_reach(self, length: int) -> bool:
        """Whether rings still have the entries that a text of this length looks at."""
        for key in self.rings:
            oldest_needed = max(length - (self.window(key) - 1), 0)
            oldest_there = max(self.longest - int(self.contents[key].shape[2]), 0)
            if oldest_needed < oldest_there:
                return False
        return True

    def rewind(self, length: int) -> None:
        """Forgets what came after the first `length` tokens.

        Raises ValueError: that length is not `reachable`.
        """
        if self.reachable(length) != length:
            raise ValueError(
                f"cannot rewind to {length} tokens: {self.reachable(length)} are reachable"
            )
        self.operands, self.pending = {}, {}
        if length == self.length and self.rings_reach(length):
            return
        self.snapshots = [taken for taken in self.snapshots if taken.length <= length]
        for key in self.overwritten:
            if self.snapshots and self.snapshots[-1].length == length:
                value = self.snapshots[-1].values[key]
            else:  # a loaded state knows only its own length and the beginning, which is zeros
                value = self.ops.zeros(tuple(self.contents[key].shape))
            self.contents[key] = self.ops.assign(self.contents[key], value)
        self.length = length
        if length == 0:
            self.longest = 0
            self.mark()

    def snapshot_is_due(self) -> bool:
        """Whether the newest snapshot is so far back that another one is needed."""
        if not self.snapshots:
            return False
        return self.length - self.snapshots[-1].length >= SNAPSHOT_EVERY
