"""Chooses the next id of each row: by argmax on the device if that is all, else by `sampling`.

If the loop reads ahead, the device draws as well (`drawing.py`), and the host checks its draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy.typing as npt

from minigen.backends.base import Array, Backend
from minigen.generation.drawing import drawn_from_all, drawn_from_best
from minigen.generation.options import Options
from minigen.generation.rows import Row, TokenLogprob, unfinished
from minigen.sampling import candidates_needed, check_row, sample, sample_best, top_logprobs


class Choice:
    """The next id of each row. It is requested from the device at once, and awaited by `read`.

    Args:
        ops: The backend.
        logits: (B, T, V), of which the last of each row count.
        options: How to choose.
        uniform: Numbers (B,) on the device. With them, the device draws too.

    Attributes:
        ids: The ids (B,) that the device chooses itself, or None if only the host chooses.
        right: Whether the host drew the same ids as the device. Known after `read`.
    """

    def __init__(
        self, ops: Backend, logits: Array, options: Options, uniform: Array | None = None
    ) -> None:
        self.ops, self.options, self.logits = ops, options, logits[:, -1]
        self.ids: Array | None = None
        self.right = True
        # Whether the host gets only the best logits, and all of them only if these do not suffice.
        self.best_only = False
        self.wait: Callable[[], list[npt.NDArray[Any]]] | None = None
        self.greedy = options.sampling.is_greedy and options.logprobs is None
        if self.greedy:
            values, self.ids = ops.best(self.logits)
            self.wait = ops.fetch(values, self.ids)
        elif options.logprobs is None and (ops.accelerated or uniform is not None):
            self.request(uniform)

    def request(self, uniform: Array | None) -> None:
        """Requests from the device what the host draws from, and the device's own draw."""
        ops, sampling, size = self.ops, self.options.sampling, self.logits.shape[-1]
        count = candidates_needed(sampling)
        self.best_only = count is not None and count < size
        if uniform is None and not self.best_only:
            return
        logits = ops.astype(self.logits, "float32")
        highest, _ = ops.best(logits)
        scaled = (logits - highest[:, None]) * (1 / sampling.temperature)
        total = ops.logsumexp(scaled)  # as `sample_best` expects it
        best: tuple[Array, Array] | None = None
        if count is not None:
            best = ops.top_k(logits, min(count, size))
        if uniform is not None and best is not None:
            self.ids = drawn_from_best(ops, *best, total, sampling, uniform)
        elif uniform is not None:
            self.ids = drawn_from_all(ops, scaled, total, sampling, uniform)
        needed = [self.logits]
        if self.best_only and best is not None:
            needed = [*best, total]
        if self.ids is not None:
            needed.append(self.ids)
        self.wait = ops.fetch(*needed)

    @cached_property
    def fetched(self) -> list[npt.NDArray[Any]]:
        """What was requested, on the host."""
        if self.wait is None:
            return []
        return self.wait()

    @cached_property
    def all_logits(self) -> npt.NDArray[Any]:
        """The logits (B, V) on the host."""
        if self.wait is None or self.best_only:
            return self.ops.numpy(self.logits)
        return self.fetched[0]

    def read(self, rows: Sequence[Row]) -> list[tuple[Row, int]]:
        """Each row that has not ended, with its next id.

        Raises MinigenError if a logit is NaN or +inf.
        """
        going = unfinished(rows)
        if self.greedy:
            return self.best_ids(rows, going)
        tokens = [self.sampled(i, rows[i]) for i in going]
        if self.ids is not None:
            self.right = self.fetched[-1][going].tolist() == tokens
        return [(rows[i], token) for i, token in zip(going, tokens, strict=True)]

    def best_ids(self, rows: Sequence[Row], going: Sequence[int]) -> list[tuple[Row, int]]:
        """The rows `going` with the ids of their highest logits, which the device chose."""
        values, ids = self.fetched
        chosen = []
        for i in going:
            check_row(values[i : i + 1])  # raises for what is not a number
            chosen.append((rows[i], int(ids[i])))
        return chosen

    def sampled(self, index: int, row: Row) -> int:
        """The next id of the row at `index`, drawn on the host. Records its log-probability."""
        options, sampling = self.options, self.options.sampling
        token = None
        if self.best_only:
            values, ids, total = self.fetched[:3]
            token = sample_best(
                values[index],
                ids[index],
                float(total[index]),
                len(row.tokens),
                sampling,
                row.sequence,
            )
        if token is None:
            logits = self.all_logits[index]
            token = sample(logits, row.tokens, len(row.prompt), sampling, row.sequence)
        if options.logprobs is not None:
            logprob, top = top_logprobs(self.all_logits[index], token, options.logprobs)
            row.logprobs.append(TokenLogprob(token, logprob, top))
        return token


def pick(
    ops: Backend, logits: Array, rows: Sequence[Row], options: Options
) -> list[tuple[Row, int]]:
    """Each row that has not ended with its next id, from logits (B, 1, V).

    Raises MinigenError if a logit is NaN or +inf.
    """
    return Choice(ops, logits, options).read(rows)
