"""Log-probabilities of given tokens, for many texts at once, with no token computed twice.

The texts are laid into a prefix tree. A stretch that all texts below it share is read once, as a line; what branches
off is read as packed branches on top of it (see branches.py). The last token of a text predicts nothing that is asked
for, so it is not read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from minigen.backends.base import Array, Backend
from minigen.errors import ContextError, UsageError
from minigen.generation.reader import BLOCK
from minigen.generation.rows import check_ids
from minigen.generation.shared_text import SharedText


@dataclass(frozen=True)
class Text:
    """Token ids, of which those from `start` on are to be scored, given all before them. `start` is at least 1."""

    ids: Sequence[int]
    start: int = 1


@dataclass
class Node:
    """One token of the prefix tree. `asked`: which text wants which next token's log-probability, and where."""

    token: int
    children: dict[int, Node] = field(default_factory=dict)
    asked: list[tuple[int, int, int]] = field(
        default_factory=list
    )  # (text, index in its result, token)
    size: int = 1  # nodes from here down


def prefix_tree(texts: Sequence[Text]) -> Node:
    """The tree below a root that stands for no token."""
    root = Node(-1)
    for number, text in enumerate(texts):
        node = root
        for i, token in enumerate(text.ids[:-1]):
            node = node.children.setdefault(int(token), Node(int(token)))
            if i + 1 >= text.start:
                node.asked.append((number, i + 1 - text.start, int(text.ids[i + 1])))
    order = [root]
    for node in order:
        order.extend(node.children.values())
    for node in reversed(order):
        node.size = 1 + sum(child.size for child in node.children.values())
    return root


def token_logprobs(
    ops: Backend, logits: Array, rows: Sequence[int], tokens: Sequence[int]
) -> npt.NDArray[np.float32]:
    """Log-probabilities (N,) of N tokens, each by one of the rows of logits (R, V); only they leave the device."""
    at, ids = ops.asarray(np.array(rows)), ops.asarray(np.array(tokens))
    found: npt.NDArray[np.float32] = ops.numpy(
        ops.astype(logits[at, ids], "float32") - ops.logsumexp(logits)[at]
    )
    return found


class Scorer:
    """Scores texts on a shared text, which it leaves where it ends, so that the next call reads only what is new."""

    def __init__(self, shared: SharedText, block: int = BLOCK) -> None:
        self.shared, self.runner, self.block = shared, shared.runner, block

    def score(
        self, texts: Sequence[Text], progress: Callable[[int], None] = lambda tokens: None
    ) -> list[npt.NDArray[np.float64]]:
        """For each text the log-probabilities (len(ids) - start,) in nats of its tokens from `start` on.

        `progress` is told how many tokens each pass has read. Raises UsageError for ids outside the vocabulary or a
        `start` that has nothing before it, ContextError for a text that is longer than the model's context.
        """
        for text in texts:
            check_ids(text.ids, self.runner.architecture.vocab_size)
            if not 1 <= text.start <= len(text.ids):
                what = (
                    f"a text of {len(text.ids)} tokens cannot be scored from token {text.start} on"
                )
                raise UsageError(
                    f"{what}: begin with one that has a token before it, or give the text a start token"
                )
            context = self.runner.architecture.context
            if context is not None and len(text.ids) - 1 > context:
                raise ContextError(
                    f"a text of {len(text.ids)} tokens exceeds the model's context of {context}"
                )
        self.shared.tokens_asked += sum(len(text.ids) - 1 for text in texts)
        self.results = [np.zeros(len(text.ids) - text.start) for text in texts]
        self.progress = progress
        self._visit(list(prefix_tree(texts).children.values()), [])
        return self.results

    def _visit(self, nodes: list[Node], path: list[int]) -> None:
        """Scores everything below `path`: small subtrees packed together, a large or lone one by its stem first."""
        group: list[Node] = []
        size = 0
        for node in nodes:
            if len(nodes) == 1 or node.size > self.block:
                self._stem(node, path)
                continue
            if size + node.size > self.block:
                self._packed(group, path)
                group, size = [], 0
            group.append(node)
            size += node.size
        if group:
            self._packed(group, path)

    def _stem(self, node: Node, path: list[int]) -> None:
        """Reads a node and its only descendants in a line, then what branches off at their end."""
        stem = [node]
        while len(node.children) == 1:
            node = next(iter(node.children.values()))
            stem.append(node)
        whole = path + [n.token for n in stem]
        at = [i for i, n in enumerate(stem, start=len(path)) if n.asked]
        before = self.shared.tokens_read
        logits = self.shared.seek(whole, at)
        self.progress(self.shared.tokens_read - before)
        if logits is not None:
            self._harvest(logits, [n for n in stem if n.asked])
        self._visit(list(node.children.values()), whole)

    def _packed(self, group: list[Node], path: list[int]) -> None:
        """Reads whole subtrees in one pass."""
        before = self.shared.tokens_read
        self.shared.seek(path)
        nodes, parents = list(group), [-1] * len(group)
        for i, node in enumerate(nodes):
            nodes.extend(node.children.values())
            parents.extend([i] * len(node.children))
        asked = [i for i, node in enumerate(nodes) if node.asked]
        logits = self.shared.branch([node.token for node in nodes], parents, asked or [0])
        self._harvest(logits, [nodes[i] for i in asked])
        self.progress(self.shared.tokens_read - before)

    def _harvest(self, logits: Array, nodes: list[Node]) -> None:
        """Takes the asked log-probabilities from the logits (len(nodes), V)."""
        asked = [(row, *wanted) for row, node in enumerate(nodes) for wanted in node.asked]
        if not asked:
            return
        picked = token_logprobs(
            self.runner.ops, logits, [row for row, *_ in asked], [token for *_, token in asked]
        )
        for (_, text, index, _), value in zip(asked, picked, strict=True):
            self.results[text][index] = value
