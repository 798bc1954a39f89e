"""Many continuations of one text: the text is read once, held once, and seen by all of them.

A branch is a chain of nodes; a node is one token, and its parent the node before it, or -1 for the end of the shared
text. Continuations that begin alike share nodes. All new nodes are read in one pass, side by side in one row: a mask
lets each see the shared text and its own ancestors, and a recurrence goes on from each node's parent. Nothing is
copied, padded or computed twice.
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
    """Nodes that grow on a state of one row, which is theirs until `close`."""

    def __init__(self, runner: Runner, state: State) -> None:
        self.runner, self.state, self.shared = runner, state, state.length
        self.nodes = BranchState(state)
        self.count = 0
        self.positions = np.arange(self.shared)  # of the shared text, then of each node
        # Row i has node i's ancestors and itself; grown by doubling. None where nothing attends.
        self.ancestors = (
            np.zeros((64, 64), dtype=np.bool_) if runner.architecture.attentions else None
        )

    def append(self, tokens: Sequence[int], parents: Sequence[int], at: Sequence[int]) -> Array:
        """Adds nodes, numbered on from those there are; a parent stands before its children.

        Returns the logits (len(at), V) after those of the new nodes that `at` picks, counted from the first new one.
        """
        older, new = self.count, len(tokens)
        self.count += new
        positions = np.concatenate([self.positions, np.zeros(new, dtype=self.positions.dtype)])
        for node, parent in enumerate(parents, start=older):
            assert -1 <= parent < node
            positions[self.shared + node] = (
                self.shared if parent < 0 else positions[self.shared + parent] + 1
            )
        self.positions = positions
        step = BranchStep(
            positions, self.seen(older, parents), [parent + 1 for parent in parents], older
        )
        runner, state = self.runner, self.state
        if state.capacity is not None and len(positions) > state.capacity:
            state.reserve(runner.ops, max(len(positions), state.capacity * 5 // 4))
        ids = runner.ops.asarray(np.asarray(tokens)[None])
        return runner.architecture.forward(runner.ops, runner.params, ids, self.nodes, at, step)[0]

    def seen(self, older: int, parents: Sequence[int]) -> np.ndarray | None:
        """(new nodes, shared tokens + nodes): who sees whom; None where nothing attends."""
        if self.ancestors is None:
            return None
        if self.count > len(self.ancestors):
            room = max(self.count, 2 * len(self.ancestors)) - len(self.ancestors)
            self.ancestors = np.pad(self.ancestors, (0, room))
        for node, parent in enumerate(parents, start=older):
            if parent >= 0:
                self.ancestors[node] = self.ancestors[parent]
            self.ancestors[node, node] = True
        everyone = np.ones((len(parents), self.shared), dtype=np.bool_)
        return np.concatenate([everyone, self.ancestors[older : self.count, : self.count]], axis=1)

    def close(self) -> None:
        """Takes all nodes away: the state is what it was."""
        self.nodes.close()
