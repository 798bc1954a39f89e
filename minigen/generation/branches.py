"""Many continuations of one text: the text is read once, held once, and seen by all of them.

A branch is a chain of nodes; a node is one token, and its parent the node before it, or -1 for the end of the shared
text. Continuations that begin alike share nodes. A decoder packs all new nodes into one row of its cache, and a mask
lets each see the shared text and its own ancestors: nothing is copied, padded or computed twice. A recurrent model
steps all nodes of a depth as one batch, forked from their parents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from minigen.backends.base import Array
from minigen.generation.loop import Runner
from minigen.layers.step import BranchStep
from minigen.models.decoder import Decoder
from minigen.models.recurrent import Recurrent, RecurrentState
from minigen.models.state import KVCache


class Branches(Protocol):
    """Nodes that grow on a state of one row, which is theirs until `close`."""

    def append(self, tokens: Sequence[int], parents: Sequence[int], at: Sequence[int]) -> Array:
        """Adds nodes, numbered on from those there are; a parent stands before its children.

        Returns the logits (len(at), V) after those of the new nodes that `at` picks, counted from the first new one.
        """
        ...

    def close(self) -> None:
        """Takes all nodes away: the state is what it was."""
        ...


def branches(runner: Runner, state: Any) -> Branches:
    """Branches on a state of one row, for either architecture."""
    if isinstance(runner.architecture, Recurrent):
        return ForkedBranches(runner, state)
    assert isinstance(runner.architecture, Decoder)
    return PackedBranches(runner, state)


class PackedBranches:
    """All nodes in one row of the cache, after the shared text."""

    def __init__(self, runner: Runner, state: KVCache) -> None:
        assert state.batch == 1
        assert state.starts is None
        self.runner, self.state, self.shared = runner, state, state.length
        self.count = 0
        self.ancestors = np.zeros((64, 64), dtype=np.bool_)  # row i has its ancestors and itself; grown by doubling
        self.positions = np.arange(self.shared)  # of the shared text, then of each node

    def append(self, tokens: Sequence[int], parents: Sequence[int], at: Sequence[int]) -> Array:
        old, new = self.count, len(tokens)
        self.count += new
        if self.count > len(self.ancestors):
            room = max(self.count, 2 * len(self.ancestors)) - len(self.ancestors)
            self.ancestors = np.pad(self.ancestors, (0, room))
        ancestors = self.ancestors
        positions = np.concatenate([self.positions, np.zeros(new, dtype=self.positions.dtype)])
        for node, parent in enumerate(parents, start=old):
            assert -1 <= parent < node
            if parent >= 0:
                ancestors[node] = ancestors[parent]
            ancestors[node, node] = True
            positions[self.shared + node] = self.shared if parent < 0 else positions[self.shared + parent] + 1
        self.positions = positions
        everyone = np.ones((new, self.shared), dtype=np.bool_)
        step = BranchStep(positions, np.concatenate([everyone, ancestors[old : self.count, : self.count]], axis=1))
        runner, state = self.runner, self.state
        assert isinstance(runner.architecture, Decoder)
        if len(positions) > state.capacity:
            state.reserve(runner.ops, max(len(positions), state.capacity * 5 // 4))
        ids = runner.ops.asarray(np.asarray(tokens)[None])
        return runner.architecture.forward(runner.ops, runner.params, ids, state, at, step)[0]

    def close(self) -> None:
        self.state.rewind(self.shared)


class ForkedBranches:
    """Every node's state as one row of a batch that grows; the shared text's is its first row."""

    def __init__(self, runner: Runner, state: RecurrentState) -> None:
        assert state.batch == 1
        self.runner = runner
        self.nodes = RecurrentState(state.layers, state.length)  # row 1 + i is node i

    def append(self, tokens: Sequence[int], parents: Sequence[int], at: Sequence[int]) -> Array:
        ops, old = self.runner.ops, self.nodes.batch - 1
        rows = {node: node + 1 for node in range(-1, old)}  # node -> its row
        logits: list[Array] = []
        where: dict[int, int] = {}  # new node -> its row in the logits
        waiting = list(range(len(tokens)))
        while waiting:
            ready = [i for i in waiting if parents[i] in rows]
            step = self.nodes.fork(ops, [rows[parents[i]] for i in ready])
            logits.append(self.runner.decode([tokens[i] for i in ready], step)[:, 0])
            for i in ready:
                where[i] = len(where)
                rows[old + i] = self.nodes.batch + ready.index(i)
            self.nodes = join(ops, self.nodes, step)
            waiting = [i for i in waiting if old + i not in rows]
        # Rows came level by level; put them in the order of the nodes, which later calls count on.
        order = [0, *(rows[node] for node in range(old + len(tokens)))]
        self.nodes = self.nodes.fork(ops, order)
        return ops.take(ops.concat(logits, axis=0), [where[i] for i in at], axis=0)

    def close(self) -> None:
        """The state was never touched."""


def join(ops: Any, a: RecurrentState, b: RecurrentState) -> RecurrentState:
    """The rows of two states as one batch."""
    layers = [
        tuple(ops.concat([x, y], axis=0) for x, y in zip(one, other, strict=True))
        for one, other in zip(a.layers, b.layers, strict=True)
    ]
    return RecurrentState(layers, a.length)
