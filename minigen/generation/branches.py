"""Many continuations of one text, which is read and stored once and which all of them attend to.

A branch is a chain of nodes. A node is one token, and its parent is the node before it, or -1 for
the end of the shared text. Continuations that begin alike share nodes. All new nodes are read in
one pass, side by side in one row: a mask lets each attend to the shared text and its own ancestors,
and a recurrence continues from each node's parent. Nothing is copied, padded or computed twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minigen.backends.base import Array
from minigen.generation.reader import Runner
from minigen.layers.branch_step import BranchStep
from minigen.models.branching import BranchState
from minigen.models.state import State


class Branches:
    """Nodes that grow on a state of one row, which must not be used otherwise until `close`."""

    def __init__(self, runner: Runner, state: State) -> None:
        self.runner, self.state, self.shared = runner, state, state.length
        self.nodes = BranchState(state)
        self.count = 0
        self.positions = np.arange(self.shared)  # of the shared text, then of each node
        # Row i marks node i and its ancestors. It grows by doubling. None if nothing attends.
        self.ancestors: np.ndarray | None = None
        if runner.architecture.attentions:
            self.ancestors = np.zeros((64, 64), dtype=np.bool_)

    def append(self, tokens: Sequence[int], parents: Sequence[int], at: Sequence[int]) -> Array:
        """Adds nodes, which are numbered after those that exist.

        Args:
            tokens: The token of each new node.
            parents: The parent of each new node, which must have a smaller number than the node.
            at: The new nodes whose logits are returned, counted from the first new one.

        Returns the logits (len(at), V) after these nodes.
        """
        older = self.count
        self.count += len(tokens)
        self.positions = self.positions_with(parents, older)
        mask = self.mask(older, parents)
        step = BranchStep(self.positions, mask, [parent + 1 for parent in parents], older)
        runner, state, needed = self.runner, self.state, len(self.positions)
        if state.capacity is not None and needed > state.capacity:
            state.reserve(runner.ops, max(needed, state.capacity * 5 // 4))
        ids = runner.ops.asarray(np.asarray(tokens)[None])
        return runner.architecture.forward(runner.ops, runner.params, ids, self.nodes, at, step)[0]

    def positions_with(self, parents: Sequence[int], older: int) -> np.ndarray:
        """The positions of all tokens, new nodes included: each is one after its parent."""
        old = self.positions
        positions = np.concatenate([old, np.zeros(len(parents), dtype=old.dtype)])
        for node, parent in enumerate(parents, start=older):
            assert -1 <= parent < node
            position = self.shared
            if parent >= 0:
                position = positions[self.shared + parent] + 1
            positions[self.shared + node] = position
        return positions

    def mask(self, older: int, parents: Sequence[int]) -> np.ndarray | None:
        """(new nodes, shared tokens + nodes): what each attends to. None if nothing attends."""
        if self.ancestors is None:
            return None
        if self.count > len(self.ancestors):
            room = max(self.count, 2 * len(self.ancestors)) - len(self.ancestors)
            self.ancestors = np.pad(self.ancestors, (0, room))
        for node, parent in enumerate(parents, start=older):
            if parent >= 0:
                self.ancestors[node] = self.ancestors[parent]
            self.ancestors[node, node] = True
        shared_text = np.ones((len(parents), self.shared), dtype=np.bool_)
        return np.concatenate(
            [shared_text, self.ancestors[older : self.count, : self.count]], axis=1
        )

    def close(self) -> None:
        """Removes all nodes. The state is again what it was before them."""
        self.nodes.close()
