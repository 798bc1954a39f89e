"""Beam search with a length penalty, as GPT-3's few-shot evaluation used it (width 4, alpha 0.6)."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from minigen.generation.options import Options
from minigen.generation.reader import Runner, decode
from minigen.generation.rows import Row, Timing, set_limits
from minigen.generation.shared_text import BranchReader, SharedText
from minigen.sampling import log_softmax


@dataclass(frozen=True)
class Hypothesis:
    """New ids, their summed log-probability, and the score that ranks them."""

    ids: list[int]
    logprob: float
    score: float
    finish: str


def length_penalty(length: int, alpha: float) -> float:
    """((5 + length) / 6) ** alpha (Wu et al. 2016), by which a sum of log-probabilities is divided."""
    return float(((5 + length) / 6) ** alpha)


def beam_search(
    runner: Runner,
    row: Row,
    beams: int = 4,
    alpha: float = 0.6,
    stop_ids: Collection[int] = (),
    timing: Timing | None = None,
    shared: SharedText | None = None,
) -> list[Hypothesis]:
    """The best `beams` continuations of a row whose limit is set, best first, each ended by a stop id or its length.

    Hypotheses are branches on the prompt, so that nothing is copied when one is dropped or doubled.
    `shared` is a text of the runner that may have read the beginning of the prompt; without it the
    prompt is a text of its own.
    """
    capacity = len(row.prompt) + row.limit
    if shared is None:
        shared = SharedText(runner, capacity)
    branches, ops = BranchReader(shared), runner.ops
    done: list[Hypothesis] = []
    began = time.perf_counter()
    logits, state = branches.prefill([row.prompt], capacity)
    ops.sync(logits)
    if timing is not None:
        timing.prefill_s += time.perf_counter() - began
    live: list[tuple[list[int], float]] = [([], 0.0)]
    for length in range(1, row.limit + 1):
        host = ops.numpy(logits[:, -1])
        totals = np.stack(
            [log_softmax(values) + score for values, (_, score) in zip(host, live, strict=True)]
        )
        # Stop ids may take as many places as there are, and `beams` must be left to go on.
        count = min(beams * (1 + len(set(stop_ids))), totals.size)
        best = np.argsort(-totals, axis=None, kind="stable")[:count]
        parents: list[int] = []
        grown: list[tuple[list[int], float]] = []
        for rank, flat in enumerate(best):
            parent, token = divmod(int(flat), totals.shape[1])
            ids, total = [*live[parent][0], token], float(totals[parent, token])
            if token in stop_ids:
                if rank < beams:  # a stop below the beam would not have been followed either
                    done.append(
                        Hypothesis(ids, total, total / length_penalty(length, alpha), "stop")
                    )
            elif len(grown) < beams and np.isfinite(total):
                parents.append(parent)
                grown.append((ids, total))
        live = grown
        done = sorted(done, key=lambda h: -h.score)[:beams]
        if not live or length == row.limit or _settled(done, live, beams, row.limit, alpha):
            break
        state = state.fork(ops, parents)
        logits = decode(branches, [ids[-1] for ids, _ in live], state)
    ended = [
        Hypothesis(ids, total, total / length_penalty(len(ids), alpha), "length")
        for ids, total in live
    ]
    if len(done) == beams and live and len(live[0][0]) < row.limit:
        ended = []  # nothing that was still growing could have come in front
    return sorted(done + ended, key=lambda h: -h.score)[:beams]


def generate_beams(
    runner: Runner,
    rows: Sequence[Row],
    options: Options,
    stop_ids: Collection[int],
    timing: Timing,
    shared: SharedText | None = None,
) -> Iterator[list[Row]]:
    """`generate` by beam search: each row gets the best hypothesis.

    It is yielded once for each of its tokens. `shared` as in `beam_search`.
    """
    set_limits(rows, options, runner.architecture)
    for row in rows:
        began, prefill = time.perf_counter(), timing.prefill_s
        best, *_ = beam_search(
            runner, row, options.beams, options.length_penalty, stop_ids, timing, shared
        )
        taken = time.perf_counter() - began
        timing.add_prompt(len(row.prompt))
        timing.first_token_s = timing.first_token_s or taken  # all tokens come at once
        timing.decode_tokens += len(best.ids)
        timing.decode_s += taken - (timing.prefill_s - prefill)
        for i, token in enumerate(best.ids):
            row.add(token)
            row.finish = best.finish if i == len(best.ids) - 1 else None
            yield [row]
            if row.finish is not None:
                break


def _settled(
    done: list[Hypothesis],
    live: list[tuple[list[int], float]],
    beams: int,
    limit: int,
    alpha: float,
) -> bool:
    """Whether no hypothesis still growing can beat the worst finished one: sums only fall, penalties only rise."""
    return len(done) == beams and live[0][1] / length_penalty(limit, alpha) <= done[-1].score
