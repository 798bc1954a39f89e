"""A text that is read once, and what goes on from it: one state that is taken from text to text by what differs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minigen.backends.base import Array, Backend
from minigen.generation.branches import Branches
from minigen.generation.loop import BLOCK, Runner


class SharedText:
    """A text that is read once and many continuations of it: one state, taken from text to text by what differs.

    `tokens_read` counts what went through the model; `tokens_asked` what its users would have read one by one.
    """

    def __init__(self, runner: Runner, capacity: int = BLOCK) -> None:
        self.runner = runner
        self.state: Any = runner.architecture.new_state(runner.ops, 1, capacity)
        self.ids: list[int] = []  # what the state has read, branches aside
        self.grown: Branches | None = None
        self.tokens_read = self.tokens_asked = 0
        self.on_read: Callable[[int, int], None] | None = None  # told of (tokens read, tokens to read) of each seek

    @property
    def tokens_saved(self) -> int:
        return self.tokens_asked - self.tokens_read

    def seek(self, ids: Sequence[int], at: Sequence[int] = ()) -> Array | None:
        """Makes the state that of `ids`, without branches.

        Returns the logits (len(at), V) after the tokens `at`, which are increasing and counted from 0.
        """
        if self.grown is not None:
            self.grown.close()
            self.grown = None
        start = self.state.reachable(min([common_length(ids, self.ids), *at[:1]]))
        self.state.rewind(start)
        self.reserve(len(ids))
        self.ids = list(ids[:start])  # true also if a pass fails half-way

        def read(begin: int, end: int, wanted: Sequence[int]) -> Array:
            if self.on_read is not None:
                self.on_read(begin - start, len(ids) - start)
            return self.runner.read([list(ids[begin:end])], self.state, wanted)[0]

        logits = self._in_blocks(start, len(ids), at, read)
        self.ids = list(ids)
        return logits

    def push(self, tokens: Sequence[int], at: Sequence[int] = (-1,)) -> Array:
        """More tokens of the text itself; the logits (len(at), V) after those `at`."""
        assert self.grown is None
        self.reserve(len(self.ids) + len(tokens))
        logits = self.runner.read([list(tokens)], self.state, at)[0]
        self.ids += tokens
        return logits

    def reachable(self, length: int) -> int:
        """As a State's."""
        return int(self.state.reachable(length))

    def rewind(self, length: int) -> None:
        """As a State's, of a text without branches."""
        assert self.grown is None
        self.state.rewind(length)
        del self.ids[length:]

    def mark(self) -> None:
        """As a State's."""
        self.state.mark()

    def reserve(self, length: int) -> None:
        """Room for a text of `length` tokens; more than that where it grows, as each time everything is copied."""
        capacity = self.state.capacity
        if capacity is not None and length > capacity:
            self.state.reserve(self.runner.ops, max(length, capacity * 5 // 4))

    def branch(self, tokens: Sequence[int], parents: Sequence[int], at: Sequence[int]) -> Array:
        """Adds nodes to the branches on the text, as `Branches.append` does; `seek` takes them away."""
        grown = self.grown = self.grown or Branches(self.runner, self.state)

        def read(begin: int, end: int, wanted: Sequence[int]) -> Array:
            return grown.append(tokens[begin:end], parents[begin:end], wanted)

        increasing = sorted(set(at))
        logits = self._in_blocks(0, len(tokens), increasing, read)
        if increasing == list(at):
            return logits
        rows = {node: row for row, node in enumerate(increasing)}
        return self.runner.ops.take(logits, [rows[node] for node in at], axis=0)

    def _in_blocks(
        self, begin: int, end: int, at: Sequence[int], read: Callable[[int, int, Sequence[int]], Array]
    ) -> Array | None:
        """Reads tokens `begin` to `end` by BLOCK, so that no pass takes more memory than one; the logits after `at`.

        `at` is increasing. `read` takes a block and what is wanted of it, counted from its first token.
        """
        ops, found = self.runner.ops, []
        for first in range(begin, end, BLOCK):
            last = min(first + BLOCK, end)
            wanted = [i - first for i in at if first <= i < last]
            logits = read(first, last, wanted or (last - first - 1,))
            ops.sync(logits)
            ops.release()
            found += [logits] if wanted else []
            self.tokens_read += last - first
        return None if not found else found[0] if len(found) == 1 else ops.concat(found, axis=0)


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two texts share at their beginning."""
    most = min(len(a), len(b))
    return next((i for i in range(most) if a[i] != b[i]), most)


class OnSharedText(Runner):
    """A Runner whose state is that of a shared text."""

    def __init__(self, shared: SharedText) -> None:
        super().__init__(shared.runner.ops, shared.runner.architecture, shared.runner.params)
        object.__setattr__(self, "shared", shared)  # Runner is frozen

    ahead = False  # the text is kept as ids
    shared: SharedText


class SharedRunner(OnSharedText):
    """A Runner whose batches share the text that all their prompts begin with: `generate` runs on it unchanged."""

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> tuple[Array, BranchedState]:
        first = prompts[0]
        length = min([len(first) - 1, *(min(common_length(first, other), len(other) - 1) for other in prompts)])
        self.shared.tokens_asked += sum(map(len, prompts))
        self.shared.seek(first[:length])
        nodes: dict[tuple[int, int], int] = {}  # (parent, token) -> node, in the order of the nodes
        leaves: list[int] = []
        for prompt in prompts:
            node = -1
            for token in prompt[length:]:
                node = nodes.setdefault((node, token), len(nodes))
            leaves.append(node)
        logits = self.shared.branch([token for _, token in nodes], [parent for parent, _ in nodes], leaves)
        return logits[:, None], BranchedState(leaves, [len(nodes)])

    def decode(self, ids: Sequence[int], state: Any) -> Array:
        self.shared.tokens_asked += len(ids)
        logits = self.shared.branch(ids, state.leaves, range(len(ids)))
        state.leaves = [state.count[0] + i for i in range(len(ids))]
        state.count[0] += len(ids)
        return logits[:, None]


class BranchedState:
    """The newest node of each row; rows that leave are simply not continued. `count`: all nodes, in a shared cell."""

    def __init__(self, leaves: list[int], count: list[int]) -> None:
        self.leaves, self.count = leaves, count

    def fork(self, ops: Backend, rows: Sequence[int]) -> BranchedState:
        return BranchedState([self.leaves[row] for row in rows], self.count)
