"""The next id of each row from the logits on the device: by argmax there where that is all, else by `sampling`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from minigen.backends.base import Array, Backend
from minigen.options import Options
from minigen.sampling import candidates_needed, check_row, sample, sample_best, top_logprobs

if TYPE_CHECKING:
    from minigen.generate import Row


@dataclass(frozen=True)
class TokenLogprob:
    """The model's own log-probability of a generated token, and the best alternatives, before any sampling stage."""

    id: int
    logprob: float
    top: list[tuple[int, float]]


class Choice:
    """The next ids, asked of the device when it is made and waited for by `read`.

    `ids` (B,) are those that the device chooses by itself, or None where the host does.
    """

    def __init__(self, ops: Backend, logits: Array, options: Options) -> None:
        self.ops, self.options, self.logits = ops, options, logits[:, -1]
        self.ids: Array | None = None
        self.some = False  # whether the best logits come first, and the rest only where it is needed
        if options.sampling.is_greedy and options.logprobs is None:
            values, self.ids = ops.best(self.logits)
            self.wait = ops.fetch(values, self.ids)
        elif ops.accelerated and options.logprobs is None:
            count = candidates_needed(options.sampling)
            self.some = count is not None and count < self.logits.shape[-1]
            if self.some:
                self.wait = ops.fetch(*self.best(count))

    def best(self, count: Any) -> tuple[Array, Array, Array]:
        """As `sample_best` takes them: values and ids (B, count), and the logarithm of the sum (B,)."""
        ops, logits = self.ops, self.ops.astype(self.logits, "float32")
        highest, _ = ops.best(logits)
        scaled = (logits - highest[:, None]) * (1 / self.options.sampling.temperature)
        return *ops.top_k(logits, count), ops.logsumexp(scaled)

    @cached_property
    def whole(self) -> npt.NDArray[Any]:
        return self.ops.numpy(self.logits)

    def read(self, rows: Sequence[Row]) -> list[tuple[Row, int]]:
        """The id of each row that goes on. Raises MinigenError where the model produced no number."""
        going = [i for i, row in enumerate(rows) if row.finish is None]
        if self.ids is not None:
            values, ids = self.wait()
            return [(rows[i], int(ids[i])) for i in going if check_row(values[i : i + 1]).size]
        return [(rows[i], token) for i, token in zip(going, self.sampled(rows, going), strict=True)]

    def sampled(self, rows: Sequence[Row], going: Sequence[int]) -> list[int]:
        options, found = self.options, []
        best = self.wait() if self.some else []
        for i in going:
            row, token = rows[i], None
            if self.some:
                values, ids, total = (x[i] for x in best)
                token = sample_best(values, ids, float(total), len(row.tokens), options.sampling, row.sequence)
            if token is None:
                token = sample(self.whole[i], row.tokens, len(row.prompt), options.sampling, row.sequence)
            if options.logprobs is not None:
                logprob, top = top_logprobs(self.whole[i], token, options.logprobs)
                row.logprobs.append(TokenLogprob(token, logprob, top))
            found.append(token)
        return found


def pick(ops: Backend, logits: Array, rows: Sequence[Row], options: Options) -> list[tuple[Row, int]]:
    """The next id of each row that goes on, from logits (B, 1, V). Raises as `Choice.read`."""
    return Choice(ops, logits, options).read(rows)
