"""The next id of each row from the logits on the device: by argmax there where that is all, else by `sampling`.

Where steps are asked for ahead, the device draws as well (`drawing.py`), and the host checks it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy.typing as npt

from minigen.backends.base import Array, Backend
from minigen.generation.drawing import drawn_from_all, drawn_from_best
from minigen.generation.options import Options
from minigen.generation.rows import Row, TokenLogprob
from minigen.sampling import candidates_needed, check_row, sample, sample_best, top_logprobs


class Choice:
    """The next ids, asked of the device when it is made and waited for by `read`.

    `ids` (B,) are those that the device chooses by itself, or None where the host does. With numbers `uniform` (B,) on
    the device it draws them, and `read` says whether they are `right`: the host draws them again.
    """

    def __init__(
        self, ops: Backend, logits: Array, options: Options, uniform: Array | None = None
    ) -> None:
        self.ops, self.options, self.logits = ops, options, logits[:, -1]
        self.ids: Array | None = None
        self.right = True
        self.some = (
            False  # whether the best logits come first, and the rest only where it is needed
        )
        self.wait: Callable[[], list[npt.NDArray[Any]]] | None = None
        self.greedy = options.sampling.is_greedy and options.logprobs is None
        if self.greedy:
            values, self.ids = ops.best(self.logits)
            self.wait = ops.fetch(values, self.ids)
        elif options.logprobs is None and (ops.accelerated or uniform is not None):
            self.ask(uniform)

    def ask(self, uniform: Array | None) -> None:
        """Asks the device for what the host draws from, and for the device's own draw."""
        ops, sampling, size = self.ops, self.options.sampling, self.logits.shape[-1]
        count = candidates_needed(sampling)
        self.some = count is not None and count < size
        if uniform is None and not self.some:
            return
        logits = ops.astype(self.logits, "float32")
        highest, _ = ops.best(logits)
        scaled = (logits - highest[:, None]) * (1 / sampling.temperature)
        total = ops.logsumexp(scaled)  # as `sample_best` takes it
        best = None if count is None else ops.top_k(logits, min(count, size))
        if uniform is not None and best is not None:
            self.ids = drawn_from_best(ops, *best, total, sampling, uniform)
        elif uniform is not None:
            self.ids = drawn_from_all(ops, scaled, total, sampling, uniform)
        wanted = [self.logits]
        if self.some and best is not None:
            wanted = [*best, total]
        if self.ids is not None:
            wanted.append(self.ids)
        self.wait = ops.fetch(*wanted)

    @cached_property
    def brought(self) -> list[npt.NDArray[Any]]:
        return [] if self.wait is None else self.wait()

    @cached_property
    def whole(self) -> npt.NDArray[Any]:
        """The logits (B, V)."""
        there = self.wait is not None and not self.some
        return self.brought[0] if there else self.ops.numpy(self.logits)

    def read(self, rows: Sequence[Row]) -> list[tuple[Row, int]]:
        """The id of each row that goes on. Raises MinigenError where the model produced no number."""
        going = [i for i, row in enumerate(rows) if row.finish is None]
        if self.greedy:
            values, ids = self.brought
            return [(rows[i], int(ids[i])) for i in going if check_row(values[i : i + 1]).size]
        tokens = self.sampled(rows, going)
        if self.ids is not None:
            self.right = self.brought[-1][going].tolist() == tokens
        return [(rows[i], token) for i, token in zip(going, tokens, strict=True)]

    def sampled(self, rows: Sequence[Row], going: Sequence[int]) -> list[int]:
        options, found = self.options, []
        for i in going:
            row, token = rows[i], None
            if self.some:
                values, ids, total = (x[i] for x in self.brought[:3])
                token = sample_best(
                    values, ids, float(total), len(row.tokens), options.sampling, row.sequence
                )
            if token is None:
                token = sample(
                    self.whole[i], row.tokens, len(row.prompt), options.sampling, row.sequence
                )
            if options.logprobs is not None:
                logprob, top = top_logprobs(self.whole[i], token, options.logprobs)
                row.logprobs.append(TokenLogprob(token, logprob, top))
            found.append(token)
        return found


def pick(
    ops: Backend, logits: Array, rows: Sequence[Row], options: Options
) -> list[tuple[Row, int]]:
    """The next id of each row that goes on, from logits (B, 1, V). Raises as `Choice.read`."""
    return Choice(ops, logits, options).read(rows)
