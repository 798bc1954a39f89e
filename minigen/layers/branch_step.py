"""A pass over the branches of a text: tokens of several continuations, side by side in one row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from minigen.backends.base import Array, Backend
from minigen.backends.quantized import Held
from minigen.layers.step import Advance, Memory, Rotate, Step


class BranchStep(Step):
    """T new tokens of one row that continue several texts; each sees its own text and no other.

    The texts share a beginning. What follows it in the row are tokens of branches: `older` ones of
    earlier passes, then the new ones.

    Args:
        at: (S,) the position of every token of the row in its text, the new ones last.
        seen: (T, S) whether a new token sees a token of the row; None where no layer attends.
        parents: (T,) which token each new one follows: 0 is the last of the shared text, 1 + i the
            i-th token after it.
        older: How many tokens of branches there were before this pass.
    """

    def __init__(
        self,
        at: npt.NDArray[np.int64],
        seen: npt.NDArray[np.bool_] | None,
        parents: Sequence[int],
        older: int,
    ) -> None:
        T, S = len(parents), len(at)
        super().__init__(S - T, T)
        self.at, self.seen, self.parents, self.older = at, seen, parents, older

    @property
    def sequential(self) -> bool:
        return False

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        return self.at[None, self.length :]

    def attend(
        self,
        ops: Backend,
        q: Array,
        k: Held,
        v: Held,
        rotate: Rotate,
        window: int | None,
        scale: float,
    ) -> Array:
        # The newest keys of the row are not the newest of each text, so all of them take part.
        keys = k.shape[2]
        mask = self.share(("mask", window, keys), lambda: self.mask_over(ops, window, keys))
        return ops.attention(rotate(q, self), k, v, scale, mask)

    def mask_over(self, ops: Backend, window: int | None, keys: int) -> Array:
        """The mask (1, 1, T, keys) over the newest `keys` keys of the row."""
        assert self.seen is not None
        seen = self.seen[:, -keys:]
        if window is not None:
            seen = seen & (self.at[None, -keys:] > self.positions.T - window)
        return ops.asarray(seen[None, None])

    def levels(self) -> list[list[int]]:
        """The new tokens by generation.

        First come those that follow a token from before this pass, then their children, and so on.
        """
        first_new = 1 + self.older
        depths: list[int] = []
        levels: list[list[int]] = []
        for token, parent in enumerate(self.parents):
            depth = 0
            if parent >= first_new:
                depth = 1 + depths[parent - first_new]
            depths.append(depth)
            if depth == len(levels):
                levels.append([])
            levels[depth].append(token)
        return levels

    def recur(
        self, ops: Backend, x: Array, before: Memory, advance: Advance
    ) -> tuple[Array, Memory]:
        """As `Step.recur`, with a memory for each token, so that a token continues its parent's.

        Args:
            ops: The operations of a backend.
            x: (1, T, C), the inputs.
            before: (1 + older, ...), the memory after the shared text and after each older token.
            advance: One step of the recurrence, here over the tokens of one generation as rows.

        Returns:
            The outputs (1, T, C'), and the memory (T, ...) after each new token.
        """
        inputs = x[0]
        memories = list(before)
        row_of = {token: token for token in range(1 + self.older)}  # of a token in `memories`
        outputs, order = [], []
        for level in self.levels():
            parent_rows = [row_of[self.parents[token]] for token in level]
            memory = tuple(ops.take(part, parent_rows, axis=0) for part in memories)
            output, after = advance(ops.take(inputs, level, axis=0), memory)
            for token in level:
                row_of[1 + self.older + token] = len(row_of)
            outputs.append(output)
            order += level
            pairs = zip(memories, after, strict=True)
            memories = [ops.concat([part, new], axis=0) for part, new in pairs]
        # Outputs and memories are in the order of generations; put them back into that of tokens.
        output_rows = [order.index(token) for token in range(self.T)]
        memory_rows = [1 + self.older + row for row in output_rows]
        y = ops.take(ops.concat(outputs, axis=0), output_rows, axis=0)[None]
        return y, tuple(ops.take(part, memory_rows, axis=0) for part in memories)
