"""A state under branches: tokens of many continuations in one row, each following its own parent.

Keys and values of all tokens lie side by side in the state's own buffers, and a mask says which
token sees which, so no key is copied. For what a recurrence overwrites there is a row per token:
each token continues from its parent's row.
"""

from __future__ import annotations

from collections.abc import Mapping

from minigen.backends.base import Array, Backend
from minigen.backends.quantized import Held
from minigen.layers.slot import ALL
from minigen.models.buffers import Key, LayerView, as_stored, concat_tokens
from minigen.models.state import Starts, State


class BranchState:
    """A state of one row whose newest tokens are branches that continue its first `shared` tokens.

    It has what `CausalLM` asks of a `State`. While it is in use, the state itself must not be.
    """

    starts: Starts | None = None

    def __init__(self, state: State) -> None:
        assert state.batch == 1
        assert state.starts is None
        self.state, self.shared = state, state.length
        self.rows = {key: state.ops.copy(state.contents[key]) for key in state.overwritten}
        self.rings = {key: state.newest(state.ops, key) for key in state.rings}
        self.pending: dict[Key, Array] = {}

    @property
    def length(self) -> int:
        return self.state.length

    def layer(self, index: int) -> LayerView:
        """The slots of one layer."""
        return LayerView(self, index)

    def check_room(self, new: int) -> None:
        """Raises ContextError unless `new` more tokens fit."""
        self.state.check_room(new)

    def append(self, ops: Backend, new: Mapping[Key, Array]) -> list[Held]:
        """As `LayerSlots.append`; returns the entries of the shared text and of all branches."""
        if all(self.state.slots[key].time == ALL for key in new):
            return self.state.append(ops, new)
        return [self.append_to_ring(ops, key, x) for key, x in new.items()]

    def append_to_ring(self, ops: Backend, key: Key, new: Array) -> Held:
        entries = as_stored(ops, self.state.contents[key], new)
        older = self.rings[key]
        if older is not None:
            entries = concat_tokens(ops, older, entries)
        self.rings[key] = entries
        return entries

    def get(self, ops: Backend, key: Key) -> Array:
        """(1 + tokens of branches, *shape): after the shared text and after each such token."""
        return self.rows[key]

    def put(self, key: Key, value: Array) -> None:
        """(new tokens, *shape)."""
        self.pending[key] = value

    def commit(self, ops: Backend) -> None:
        """Ends the operations of a pass: adds the rows that it has put."""
        for key, value in self.pending.items():
            self.rows[key] = ops.concat([self.rows[key], value], axis=0)
        self.pending = {}

    def passed(self, new: int) -> None:
        """Counts the tokens of a pass."""
        self.state.length += new

    def close(self) -> None:
        """Removes the branches: the state is what it was."""
        self.state.length = self.shared
