"""Log-probabilities of given tokens, for many texts at once, with no token computed twice.

The texts form a prefix tree. A stem that all texts below it share is read once, as a line; the
subtrees at its end are read as packed branches on top of it (see branches.py). The last token of a
text predicts nothing that is scored, so it is not read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from minigen.backends.base import Array, Backend
from minigen.errors import ContextError, UsageError
from minigen.generation.reader import BLOCK
from minigen.generation.rows import check_ids
from minigen.generation.shared_text import SharedText


@dataclass(frozen=True)
class Text:
    """Token ids; those from `start` on are scored, given all before them. `start` is at least 1."""

    ids: Sequence[int]
    start: int = 1


class Request(NamedTuple):
    """One log-probability to compute: that of `token`, which follows a node of the tree."""

    text: int  # index of the text that asks for it
    position: int  # in the result of that text
    token: int


@dataclass
class Node:
    """One token of the prefix tree, and what is to be computed of the tokens that follow it."""

    token: int
    children: dict[int, Node] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    size: int = 1  # nodes of the subtree, this one included


def prefix_tree(texts: Sequence[Text]) -> Node:
    """The tree of the texts, below a root that stands for no token."""
    root = Node(-1)
    for number, text in enumerate(texts):
        node = root
        for i, token in enumerate(text.ids[:-1]):
            node = node.children.setdefault(int(token), Node(int(token)))
            following = i + 1
            if following >= text.start:
                request = Request(number, following - text.start, int(text.ids[following]))
                node.requests.append(request)
    order = [root]
    for node in order:
        order.extend(node.children.values())
    for node in reversed(order):
        node.size = 1 + sum(child.size for child in node.children.values())
    return root


def token_logprobs(
    ops: Backend, logits: Array, rows: Sequence[int], tokens: Sequence[int]
) -> npt.NDArray[np.float32]:
    """Log-probabilities (N,) of the `tokens` (N,), each by one of the `rows` (N,) of logits (R, V).

    Only they leave the device.
    """
    row_index = ops.asarray(np.array(rows))
    token_index = ops.asarray(np.array(tokens))
    chosen = ops.astype(logits[row_index, token_index], "float32")
    logprobs: npt.NDArray[np.float32] = ops.numpy(chosen - ops.logsumexp(logits)[row_index])
    return logprobs


class Scorer:
    """Scores texts on a `SharedText`, whose state it keeps for the next call."""

    def __init__(self, shared: SharedText, block: int = BLOCK) -> None:
        self.shared = shared
        self.runner = shared.runner
        self.block = block

    def score(
        self, texts: Sequence[Text], progress: Callable[[int], None] | None = None
    ) -> list[npt.NDArray[np.float64]]:
        """The log-probabilities of each text's tokens from `start` on, (len(ids) - start,) in nats.

        `progress` is called after each pass with the number of tokens that the pass has read.

        Raises UsageError: an id is outside the vocabulary, or `start` has nothing before it.
        Raises ContextError: a text is longer than the model's context.
        """
        for text in texts:
            self._check(text)
        self.shared.tokens_asked += sum(len(text.ids) - 1 for text in texts)
        self.results = [np.zeros(len(text.ids) - text.start) for text in texts]
        self.progress = progress
        self._read_below([], list(prefix_tree(texts).children.values()))
        return self.results

    def _check(self, text: Text) -> None:
        architecture = self.runner.architecture
        check_ids(text.ids, architecture.vocab_size)
        if not 1 <= text.start <= len(text.ids):
            raise UsageError(
                f"a text of {len(text.ids)} tokens cannot be scored from token {text.start} on: "
                "begin with one that has a token before it, or give the text a start token"
            )
        if architecture.context is not None and len(text.ids) - 1 > architecture.context:
            raise ContextError(
                f"a text of {len(text.ids)} tokens exceeds the model's context of "
                f"{architecture.context}"
            )

    def _read_below(self, path: list[int], nodes: list[Node]) -> None:
        """Scores the subtrees of `nodes`, which follow the tokens of `path`.

        Small subtrees are packed together; a large one, or a single one, is read by its stem first.
        """
        group: list[Node] = []
        group_size = 0
        for node in nodes:
            if len(nodes) == 1 or node.size > self.block:
                self._read_stem(path, node)
                continue
            if group_size + node.size > self.block:
                self._read_packed(path, group)
                group, group_size = [], 0
            group.append(node)
            group_size += node.size
        if group:
            self._read_packed(path, group)

    def _read_stem(self, path: list[int], node: Node) -> None:
        """Reads a node and its descendants up to the first branching, then those below."""
        stem = [node]
        while len(node.children) == 1:
            node = next(iter(node.children.values()))
            stem.append(node)
        stem_path = list(path)
        positions: list[int] = []
        requested: list[Node] = []
        for stem_node in stem:
            if stem_node.requests:
                positions.append(len(stem_path))
                requested.append(stem_node)
            stem_path.append(stem_node.token)
        read_before = self.shared.tokens_read
        logits = self.shared.seek(stem_path, positions)
        self._report(read_before)
        if logits is not None:
            self._store(logits, requested)
        self._read_below(stem_path, list(node.children.values()))

    def _read_packed(self, path: list[int], group: list[Node]) -> None:
        """Reads whole subtrees in one pass."""
        read_before = self.shared.tokens_read
        self.shared.seek(path)
        nodes = list(group)
        parents = [-1] * len(group)
        for i, node in enumerate(nodes):
            nodes.extend(node.children.values())
            parents.extend([i] * len(node.children))
        positions = [i for i, node in enumerate(nodes) if node.requests]
        logits = self.shared.branch([node.token for node in nodes], parents, positions or [0])
        self._store(logits, [nodes[i] for i in positions])
        self._report(read_before)

    def _report(self, read_before: int) -> None:
        if self.progress is not None:
            self.progress(self.shared.tokens_read - read_before)

    def _store(self, logits: Array, nodes: list[Node]) -> None:
        """Writes the requested log-probabilities of nodes with logits (len(nodes), V)."""
        rows: list[int] = []
        requests: list[Request] = []
        for row, node in enumerate(nodes):
            rows += [row] * len(node.requests)
            requests += node.requests
        if not requests:
            return
        tokens = [request.token for request in requests]
        logprobs = token_logprobs(self.runner.ops, logits, rows, tokens)
        for request, logprob in zip(requests, logprobs, strict=True):
            self.results[request.text][request.position] = logprob
