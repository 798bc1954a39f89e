"""A state under branches: the tokens of many continuations in one row, each of which follows a token of its own.

Keys and values of all tokens stand side by side in the state's own buffers, and a mask tells who sees whom: no key is
copied. Of what a recurrence overwrites there is a row for each token, so that each goes on from its parent's.
"""

from __future__ import annotations

from collections.abc import Mapping

from minigen.backends.base import Array, Backend
from minigen.backends.quantized import Held, each
from minigen.layers.slot import ALL
from minigen.models.buffers import Key, LayerView, like_ring
from minigen.models.state import Starts, State


class BranchState:
    """A state of one row, whose newest tokens are branches on the first `shared`."""

    starts: Starts | None = None

    def __init__(self, state: State) -> None:
        assert state.batch == 1
        assert state.starts is None
        self.state, self.shared = state, state.length
        self.rows = {key: state.ops.copy(state.held[key]) for key in state.overwritten}
        self.rings: dict[Key, Held | None] = {key: state.newest(state.ops, key) for key in state.rings}
        self.pending: dict[Key, Array] = {}

    @property
    def length(self) -> int:
        return self.state.length

    def layer(self, index: int) -> LayerView:
        return LayerView(self, index)

    def check_room(self, new: int) -> None:
        self.state.check_room(new)

    def append(self, ops: Backend, new: Mapping[Key, Array]) -> list[Held]:
        """Those of the shared text that each slot has, and of all branches, the new ones last."""
        if all(self.state.slots[key].time == ALL for key in new):
            return self.state.append(ops, new)
        return [self.append_to_ring(ops, key, x) for key, x in new.items()]

    def append_to_ring(self, ops: Backend, key: Key, new: Array) -> Held:
        older, rounded = self.rings[key], like_ring(ops, self.state.held[key], new)
        if older is not None:
            rounded = each(lambda *parts: ops.concat(parts, axis=2), older, rounded)
        self.rings[key] = rounded
        return rounded

    def get(self, ops: Backend, key: Key) -> Array:
        """(1 + tokens of branches, *shape): after the shared text, and after each of them."""
        return self.rows[key]

    def put(self, key: Key, value: Array) -> None:
        """(new tokens, *shape)."""
        self.pending[key] = value

    def settle(self, ops: Backend) -> None:
        for key, value in self.pending.items():
            self.rows[key] = ops.concat([self.rows[key], value], axis=0)
        self.pending = {}

    def passed(self, new: int) -> None:
        self.state.length += new

    def close(self) -> None:
        """Takes the branches away: the state is what it was."""
        self.state.length = self.shared
