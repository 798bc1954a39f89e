"""A text that is read once, and what goes on from it.

One state is taken from text to text by what differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from minigen.backends.base import Array, Backend
from minigen.generation.branches import Branches
from minigen.generation.reader import BLOCK, Runner

OnRead = Callable[[int, int], None] | None  # gets (tokens read, tokens to read) before each pass


class Block(NamedTuple):
    """Tokens `begin` to `end`, which one pass reads.

    `wanted` are those whose logits are asked for, counted from `begin`.
    """

    begin: int
    end: int
    wanted: list[int]

    @property
    def at(self) -> list[int]:
        """As a reader takes it: a pass gives the logits after one token at least."""
        return self.wanted or [self.end - self.begin - 1]


def blocks(begin: int, end: int, at: Sequence[int]) -> Iterator[Block]:
    """Tokens `begin` to `end` by BLOCK, so that no pass takes more memory than one.

    `at` are the tokens whose logits are wanted, increasing and counted as `begin` is.
    """
    for first in range(begin, end, BLOCK):
        last = min(first + BLOCK, end)
        yield Block(first, last, [i - first for i in at if first <= i < last])


class SharedText:
    """A text that is read once, and many continuations of it, in one state.

    `tokens_read` counts what went through the model; `tokens_asked` what its users would have read
    one by one.
    """

    def __init__(self, runner: Runner, capacity: int = BLOCK) -> None:
        self.runner = runner
        self.state: Any = runner.architecture.new_state(runner.ops, 1, capacity)
        self.ids: list[int] = []  # what the state has read, branches aside
        self.grown: Branches | None = None
        self.tokens_read = self.tokens_asked = 0

    @property
    def tokens_saved(self) -> int:
        return self.tokens_asked - self.tokens_read

    def seek(
        self, ids: Sequence[int], at: Sequence[int] = (), on_read: OnRead = None
    ) -> Array | None:
        """Makes the state that of `ids`, without branches.

        Returns the logits (len(at), V) after the tokens `at`, increasing and counted from 0.
        """
        if self.grown is not None:
            self.grown.close()
            self.grown = None
        start = self.state.reachable(min([common_length(ids, self.ids), *at[:1]]))
        self.state.rewind(start)
        self.reserve(len(ids))
        self.ids = list(ids[:start])  # true also if a pass fails half-way
        logits: list[Array] = []
        for block in blocks(start, len(ids), at):
            if on_read is not None:
                on_read(block.begin - start, len(ids) - start)
            tokens = list(ids[block.begin : block.end])
            self._end_pass(block, self.runner.read([tokens], self.state, block.at)[0], logits)
        self.ids = list(ids)
        return self._joined(logits)

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
        """Makes room for `length` tokens, and for more where it grows: each time all is copied."""
        capacity = self.state.capacity
        if capacity is not None and length > capacity:
            self.state.reserve(self.runner.ops, max(length, capacity * 5 // 4))

    def branch(self, tokens: Sequence[int], parents: Sequence[int], at: Sequence[int]) -> Array:
        """Adds nodes to the branches on the text, as `Branches.append`; `seek` takes them away."""
        if self.grown is None:
            self.grown = Branches(self.runner, self.state)
        increasing = sorted(set(at))
        logits: list[Array] = []
        for block in blocks(0, len(tokens), increasing):
            new = slice(block.begin, block.end)
            self._end_pass(block, self.grown.append(tokens[new], parents[new], block.at), logits)
        joined = self._joined(logits)
        if increasing == list(at):
            return joined
        rows = {node: row for row, node in enumerate(increasing)}
        return self.runner.ops.take(joined, [rows[node] for node in at], axis=0)

    def _end_pass(self, block: Block, logits: Array, wanted: list[Array]) -> None:
        """Waits for the pass over a block, and adds its logits to `wanted` if the block asks."""
        self.runner.ops.sync(logits)
        self.runner.ops.release()
        self.tokens_read += block.end - block.begin
        if block.wanted:
            wanted.append(logits)

    def _joined(self, logits: list[Array]) -> Array | None:
        """The logits of several passes, one after the other; None for none."""
        if not logits:
            return None
        return logits[0] if len(logits) == 1 else self.runner.ops.concat(logits, axis=0)


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two texts share at their beginning."""
    most = min(len(a), len(b))
    return next((i for i in range(most) if a[i] != b[i]), most)


class BranchReader:
    """A Reader that reads what all prompts begin with once: each goes on as a branch of it."""

    ahead = False  # a branch's tokens are known before it grows

    def __init__(self, shared: SharedText) -> None:
        self.shared, self.runner = shared, shared.runner

    def prefill(
        self, prompts: Sequence[Sequence[int]], capacity: int
    ) -> tuple[Array, BranchedState]:
        shared_tokens = self.common(prompts)
        self.shared.tokens_asked += sum(map(len, prompts))
        self.shared.seek(prompts[0][:shared_tokens])
        nodes: dict[tuple[int, int], int] = {}  # (parent, token) -> node, in the order of the nodes
        leaves: list[int] = []
        for prompt in prompts:
            node = -1
            for token in prompt[shared_tokens:]:
                node = nodes.setdefault((node, token), len(nodes))
            leaves.append(node)
        parents, tokens = zip(*nodes, strict=True)
        logits = self.shared.branch(tokens, parents, leaves)
        return logits[:, None], BranchedState(leaves, [len(nodes)])

    def common(self, prompts: Sequence[Sequence[int]]) -> int:
        """How many tokens all prompts share at their beginning, the last of each left out.

        It is read as a branch, since the logits after it are asked for.
        """
        first = prompts[0]
        length = len(first) - 1
        for prompt in prompts:
            length = min(length, common_length(first, prompt), len(prompt) - 1)
        return length

    def read(self, ids: Any, state: BranchedState, at: Sequence[int] = (-1,)) -> Array:
        """One more node (B, 1) on each branch; the logits (B, 1, V)."""
        assert tuple(at) == (-1,)
        tokens = [int(token) for (token,) in ids]
        self.shared.tokens_asked += len(tokens)
        logits = self.shared.branch(tokens, state.leaves, range(len(tokens)))
        state.grow(len(tokens))
        return logits[:, None]


class BranchedState:
    """The newest node of each row; rows that leave are not continued.

    `count` has the number of all nodes, in a list of one that all forks share.
    """

    def __init__(self, leaves: list[int], count: list[int]) -> None:
        self.leaves, self.count = leaves, count

    def grow(self, rows: int) -> None:
        """Each of the rows has got a node."""
        first = self.count[0]
        self.leaves = list(range(first, first + rows))
        self.count[0] += rows

    def fork(self, ops: Backend, rows: Sequence[int]) -> BranchedState:
        return BranchedState([self.leaves[row] for row in rows], self.count)
