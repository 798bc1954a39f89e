"""Beam search with a length penalty, as in GPT-3's few-shot evaluation (4 beams, alpha 0.6)."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from minigen.generation.options import Options
from minigen.generation.reader import Runner, decode
from minigen.generation.rows import Row, Timing, set_limits
from minigen.generation.shared_text import BranchReader, SharedText
from minigen.sampling import log_softmax


class Beam(NamedTuple):
    """A continuation that still grows: its new ids and their summed log-probability."""

    ids: list[int]
    logprob: float


@dataclass(frozen=True)
class Hypothesis:
    """A finished continuation.

    Fields:
        ids: The new ids.
        logprob: Their summed log-probability.
        score: What ranks it: `logprob` divided by the length penalty.
        finish: "stop" after a stop id, "length" at the row's limit.
    """

    ids: list[int]
    logprob: float
    score: float
    finish: str


def length_penalty(length: int, alpha: float) -> float:
    """((5 + length) / 6) ** alpha (Wu et al. 2016), which divides the log-probability."""
    return float(((5 + length) / 6) ** alpha)


class BeamSearch:
    """The beams of one row, and the best hypotheses so far.

    Args:
        beams: How many beams to follow and hypotheses to keep.
        alpha: The exponent of the length penalty.
        limit: The maximum number of new tokens.
        stop_ids: The ids that end a hypothesis.
    """

    def __init__(self, beams: int, alpha: float, limit: int, stop_ids: Collection[int]) -> None:
        self.beams, self.alpha, self.limit = beams, alpha, limit
        self.stop_ids = stop_ids
        self.live = [Beam([], 0.0)]  # best first
        self.finished: list[Hypothesis] = []  # best first

    def extend(self, logits: npt.NDArray[np.floating]) -> list[int]:
        """Replaces the beams by the best that are one token longer.

        Args:
            logits: (live beams, V), after each beam.

        Returns the index of the old beam that each new one continues.
        """
        totals = np.stack(
            [log_softmax(row) + beam.logprob for row, beam in zip(logits, self.live, strict=True)]
        )
        # Of the best, so many may be stop ids, and `beams` others must be left.
        count = min(self.beams * (1 + len(set(self.stop_ids))), totals.size)
        best = np.argsort(-totals, axis=None, kind="stable")[:count]
        parents: list[int] = []
        grown: list[Beam] = []
        for rank, index in enumerate(best):
            parent, token = divmod(int(index), totals.shape[1])
            beam = Beam([*self.live[parent].ids, token], float(totals[parent, token]))
            if token in self.stop_ids:
                # A stop id that ranks below the beams would not have been followed either.
                if rank < self.beams:
                    self.finished.append(self.hypothesis(beam, "stop"))
            elif len(grown) < self.beams and np.isfinite(beam.logprob):
                parents.append(parent)
                grown.append(beam)
        self.live = grown
        self.finished = self.ranked(self.finished)
        return parents

    def hypothesis(self, beam: Beam, finish: str) -> Hypothesis:
        score = beam.logprob / length_penalty(len(beam.ids), self.alpha)
        return Hypothesis(beam.ids, beam.logprob, score, finish)

    def ranked(self, hypotheses: list[Hypothesis]) -> list[Hypothesis]:
        """The best `beams` of them, best first."""
        return sorted(hypotheses, key=lambda h: -h.score)[: self.beams]

    @property
    def at_limit(self) -> bool:
        """Whether the beams are as long as they may be."""
        return bool(self.live) and len(self.live[0].ids) == self.limit

    @property
    def settled(self) -> bool:
        """Whether no beam can beat the worst finished hypothesis any more.

        Log-probabilities only fall as a beam grows, and the penalty is largest at the limit.
        """
        if len(self.finished) < self.beams:
            return False
        bound = self.live[0].logprob / length_penalty(self.limit, self.alpha)
        return bound <= self.finished[-1].score

    def results(self) -> list[Hypothesis]:
        """The best hypotheses, best first. Beams count only if they have reached the limit."""
        if not self.at_limit:
            return self.finished
        unended = [self.hypothesis(beam, "length") for beam in self.live]
        return self.ranked(self.finished + unended)


def beam_search(
    runner: Runner,
    row: Row,
    beams: int = 4,
    alpha: float = 0.6,
    stop_ids: Collection[int] = (),
    timing: Timing | None = None,
    shared: SharedText | None = None,
) -> list[Hypothesis]:
    """The best continuations of a row.

    The beams are branches of the prompt, so nothing is copied when one is dropped or split.

    Args:
        runner: The model.
        row: The row, with its limit set.
        beams: How many beams to follow and hypotheses to return.
        alpha: The exponent of the length penalty.
        stop_ids: The ids that end a hypothesis.
        timing: Gets the time that the prompt took; may be None.
        shared: A text of `runner` that may have read the beginning of the prompt already. Without
            it, the prompt is a text of its own.

    Returns at most `beams` hypotheses, best first.
    """
    capacity = len(row.prompt) + row.limit
    if shared is None:
        shared = SharedText(runner, capacity)
    branches, ops = BranchReader(shared), runner.ops
    began = time.perf_counter()
    logits, state = branches.prefill([row.prompt], capacity)
    ops.sync(logits)
    if timing is not None:
        timing.prefill_s += time.perf_counter() - began
    search = BeamSearch(beams, alpha, row.limit, stop_ids)
    for _ in range(row.limit):
        parents = search.extend(ops.numpy(logits[:, -1]))
        if not search.live or search.at_limit or search.settled:
            break
        state = state.fork(ops, parents)
        logits = decode(branches, [beam.ids[-1] for beam in search.live], state)
    return search.results()


def generate_beams(
    runner: Runner,
    rows: Sequence[Row],
    options: Options,
    stop_ids: Collection[int],
    timing: Timing,
    shared: SharedText | None = None,
) -> Iterator[list[Row]]:
    """As `loop.generate`, by beam search: each row gets the ids of its best hypothesis.

    A row is yielded once for each of its tokens, although all are known after the search. `shared`
    is that of `beam_search`. Raises the errors of `set_limits`.
    """
    set_limits(rows, options, runner.architecture)
    for row in rows:
        began, prefill = time.perf_counter(), timing.prefill_s
        best, *_ = beam_search(
            runner, row, options.beams, options.length_penalty, stop_ids, timing, shared
        )
        seconds = time.perf_counter() - began
        timing.add_prompt(len(row.prompt))
        if timing.first_token_s == 0:
            timing.first_token_s = seconds  # all tokens come at once
        timing.decode_tokens += len(best.ids)
        timing.decode_s += seconds - (timing.prefill_s - prefill)
        last = len(best.ids) - 1
        for i, token in enumerate(best.ids):
            row.add(token)
            if i == last:
                row.finish = best.finish
            yield [row]
            if row.finish is not None:  # also if the caller has ended it
                break
