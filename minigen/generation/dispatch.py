"""Who runs what is asked for: sampling, beam search, or sampling with guesses.

Nothing else decides it.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence

from minigen.backends.base import Backend
from minigen.generation.beam import generate_beams
from minigen.generation.loop import generate
from minigen.generation.options import Options
from minigen.generation.reader import Reader
from minigen.generation.rows import Row, Timing
from minigen.generation.shared_text import BranchReader, SharedText
from minigen.generation.speculation import speculative


def steps(
    reader: Reader,
    rows: Sequence[Row],
    options: Options,
    stop_ids: Collection[int] = (),
    timing: Timing | None = None,
    draft: SharedText | None = None,
) -> Generator[list[Row], None, None]:
    """`generate` as the options ask for it: by sampling or by beam search, with guesses or without.

    `draft` is the text of a draft model. Raises UsageError at once where speculation is not for
    this run.
    """
    if timing is None:
        timing = Timing()
    if options.speculate is not None or draft is not None:
        reader = speculative(reader, rows, options, stop_ids, timing, draft)
    if options.beams > 1:
        shared = reader.shared if isinstance(reader, BranchReader) else None
        run = generate_beams(reader.runner, rows, options, stop_ids, timing, shared)
    else:
        run = generate(reader, rows, options, stop_ids, timing)
    return as_one_text(reader.runner.ops, run)


def as_one_text(ops: Backend, run: Iterator[list[Row]]) -> Generator[list[Row], None, None]:
    """The steps of `run`, of which the backend is told that they belong together."""
    with ops.one_text():
        yield from run
