"""Decides, alone, how a run is done: by sampling or beam search, with or without speculation."""

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
    """Generates all rows in the way that the options ask for.

    Args:
        reader: Computes the logits.
        rows: The rows, which get their new ids.
        options: How to generate.
        stop_ids: The ids that end a row.
        timing: Gets the times and counts; may be None.
        draft: The text of a draft model, for speculation.

    Returns an iterator over the steps: the rows that got a token, the last of their `ids`.

    Raises UsageError at once if speculation does not work for this run. While it runs, it raises
    the errors of `loop.generate`.
    """
    if timing is None:
        timing = Timing()
    if options.speculate is not None or draft is not None:
        reader = speculative(reader, rows, options, stop_ids, timing, draft)
    if options.beams > 1:
        shared = None
        if isinstance(reader, BranchReader):
            shared = reader.shared
        run = generate_beams(reader.runner, rows, options, stop_ids, timing, shared)
    else:
        run = generate(reader, rows, options, stop_ids, timing)
    return as_one_text(reader.runner.ops, run)


def as_one_text(ops: Backend, run: Iterator[list[Row]]) -> Generator[list[Row], None, None]:
    """The steps of `run`, within the backend's `one_text`."""
    with ops.one_text():
        yield from run
