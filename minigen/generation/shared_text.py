"""A text that is read once, and continuations of it.

One state serves one text after another: only what differs from the last text is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from minigen.backends.base import Array, Backend
from minigen.generation.branches import Branches
from minigen.generation.reader import BLOCK, Runner

# Called before each pass with (tokens read, tokens to read).
OnRead = Callable[[int, int], None] | None


class Block(NamedTuple):
    """Tokens `begin` to `end`, which one pass reads.

    `wanted` are the tokens whose logits are requested, counted from `begin`.
    """

    begin: int
    end: int
    wanted: list[int]

    @property
    def at(self) -> list[int]:
        """`wanted`, or else the last token: a pass computes the logits of at least one."""
        return self.wanted or [self.end - self.begin - 1]


def blocks(begin: int, end: int, at: Sequence[int]) -> Iterator[Block]:
    """Splits tokens `begin` to `end` into blocks of BLOCK, to limit the memory of a pass.

    `at` are the tokens whose logits are requested, increasing and counted as `begin` is.
    """
    for first in range(begin, end, BLOCK):
        last = min(first + BLOCK, end)
        yield Block(first, last, [i - first for i in at if first <= i < last])


class SharedText:
    """A text that is read once, and many continuations of it, in one state.

    Attributes:
        tokens_read: How many tokens went through the model.
        tokens_asked: How many would have, if every text had been read from its beginning.
    """

    def __init__(self, runner: Runner, capacity: int = BLOCK) -> None:
        self.runner = runner
        self.state: Any = runner.architecture.new_state(runner.ops, 1, capacity)
        self.ids: list[int] = []  # what the state has read, without branches
        self.grown: Branches | None = None
        self.tokens_read = self.tokens_asked = 0

    @property
    def tokens_saved(self) -> int:
        return self.tokens_asked - self.tokens_read

    def seek(
        self, ids: Sequence[int], at: Sequence[int] = (), on_read: OnRead = None
    ) -> Array | None:
        """Makes the state that of a text, and removes all branches.

        Args:
            ids: The text.
            at: The tokens whose logits are requested, increasing and counted from 0.
            on_read: Called before each pass.

        Returns the logits (len(at), V), or None if `at` is empty.
        """
        if self.grown is not None:
            self.grown.close()
            self.grown = None
        start = self.state.reachable(min([common_length(ids, self.ids), *at[:1]]))
        self.state.rewind(start)
        self.reserve(len(ids))
        self.ids = list(ids[:start])  # correct even if a pass fails
        logits: list[Array] = []
        for block in blocks(start, len(ids), at):
            if on_read is not None:
                on_read(block.begin - start, len(ids) - start)
            tokens = list(ids[block.begin : block.end])
            self._end_pass(block, self.runner.read([tokens], self.state, block.at)[0], logits)
        self.ids = list(ids)
        return self._joined(logits)

    def push(self, tokens: Sequence[int], at: Sequence[int] = (-1,)) -> Array:
        """Appends tokens to the text itself. Returns the logits (len(at), V) at `at`."""
        assert self.grown is None
        self.reserve(len(self.ids) + len(tokens))
        logits = self.runner.read([list(tokens)], self.state, at)[0]
        self.ids += tokens
        return logits

    def reachable(self, length: int) -> int:
        """As `State.reachable`."""
        return int(self.state.reachable(length))

    def rewind(self, length: int) -> None:
        """As `State.rewind`, if there are no branches."""
        assert self.grown is None
        self.state.rewind(length)
        del self.ids[length:]

    def mark(self) -> None:
        """As `State.mark`."""
        self.state.mark()

    def reserve(self, length: int) -> None:
        """Makes room for `length` tokens, and some more, since each time everything is copied."""
        capacity = self.state.capacity
        if capacity is not None and length > capacity:
            self.state.reserve(self.runner.ops, max(length, capacity * 5 // 4))

    def branch(self, tokens: Sequence[int], parents: Sequence[int], at: Sequence[int]) -> Array:
        """Adds nodes to the branches of the text, as `Branches.append`. `seek` removes them."""
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
        """Waits for the pass over a block, and adds its logits to `wanted` if requested."""
        self.runner.ops.sync(logits)
        self.runner.ops.release()
        self.tokens_read += block.end - block.begin
        if block.wanted:
            wanted.append(logits)

    def _joined(self, logits: list[Array]) -> Array | None:
        """The logits of several passes, joined; None for no pass."""
        if not logits:
            return None
        if len(logits) == 1:
            return logits[0]
        return self.runner.ops.concat(logits, axis=0)


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens at their beginning are the same in two texts."""
    for i, (ours, theirs) in enumerate(zip(a, b, strict=False)):
        if ours != theirs:
            return i
    return min(len(a), len(b))


class BranchReader:
    """A Reader that reads the common beginning of all prompts once; each continues as a branch."""

    ahead = False  # the tokens of a branch must be known before it grows

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
        """How many tokens at the beginning are the same in all prompts.

        The last token of each prompt does not count: it is read as a branch, since the logits after
        it are needed.
        """
        first = prompts[0]
        length = len(first) - 1
        for prompt in prompts:
            length = min(length, common_length(first, prompt), len(prompt) - 1)
        return length

    def read(self, ids: Any, state: BranchedState, at: Sequence[int] = (-1,)) -> Array:
        """Adds a node (B, 1) to each branch. Returns the logits (B, 1, V) after it."""
        assert tuple(at) == (-1,)
        tokens = [int(token) for (token,) in ids]
        self.shared.tokens_asked += len(tokens)
        logits = self.shared.branch(tokens, state.leaves, range(len(tokens)))
        state.grow(len(tokens))
        return logits[:, None]


class BranchedState:
    """The state of rows that are branches.

    Attributes:
        leaves: The newest node of each row. The branches of rows that have left stop growing.
        count: The number of all nodes, in a list of one number that all forks share.
    """

    def __init__(self, leaves: list[int], count: list[int]) -> None:
        self.leaves, self.count = leaves, count

    def grow(self, rows: int) -> None:
        """Makes new nodes, one for each row, the leaves."""
        first = self.count[0]
        self.leaves = list(range(first, first + rows))
        self.count[0] += rows

    def fork(self, ops: Backend, rows: Sequence[int]) -> BranchedState:
        return BranchedState([self.leaves[row] for row in rows], self.count)
