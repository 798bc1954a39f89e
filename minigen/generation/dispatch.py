"""Who runs what is asked for: sampling, beam search, or either with guesses."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence

from minigen.backends.base import Backend
from minigen.generation.beam import generate_beams
from minigen.generation.loop import Row, Runner, Timing, generate
from minigen.generation.options import Options
from minigen.generation.shared_text import SharedText
from minigen.generation.speculation import speculative


def steps(
    runner: Runner,
    rows: Sequence[Row],
    options: Options,
    stop_ids: Collection[int] = (),
    timing: Timing | None = None,
    draft: SharedText | None = None,
) -> Generator[list[Row], None, None]:
    """`generate` as the options ask for it: by sampling or by beam search, with guesses or without.

    `draft` is the text of a draft model. Raises UsageError at once where speculation is not for this run.
    """
    timing = timing if timing is not None else Timing()
    if options.speculate is not None or draft is not None:
        runner = speculative(runner, rows, options, stop_ids, timing, draft)
    run = generate_beams if options.beams > 1 else generate
    return as_one_text(runner.ops, run(runner, rows, options, stop_ids, timing))


def as_one_text(ops: Backend, run: Iterator[list[Row]]) -> Generator[list[Row], None, None]:
    """The steps of `run`, of which the backend is told that they belong together."""
    with ops.one_text():
        yield from run
