"""The loop: prompts are read, and then each step chooses an id per row, ends rows, and reads.

A Reader reads (`reader.py`), a Choice chooses (`choosing.py`), and `finish` ends rows. The results
are ids; `text.py` turns them into text.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from minigen.backends.base import Array
from minigen.generation.choosing import Choice
from minigen.generation.drawing import Uniforms
from minigen.generation.options import Options
from minigen.generation.reader import Reader, decode
from minigen.generation.rows import Row, Timing, set_limits, unfinished


def generate(
    reader: Reader,
    rows: Sequence[Row],
    options: Options,
    stop_ids: Collection[int] = (),
    timing: Timing | None = None,
) -> Iterator[list[Row]]:
    """Generates all rows as one batch, and yields after each step the rows that got a token.

    The token is the last of `row.ids`. A row ends at a stop id, at its limit, or when the caller
    sets `row.finish`. Equal prompts are read once.

    Args:
        reader: Computes the logits.
        rows: The rows, which get their new ids.
        options: How to choose ids, and how many.
        stop_ids: The ids that end a row.
        timing: Gets the times and counts; may be None.

    Raises the errors of `set_limits`, and MinigenError if a logit is NaN or +inf.
    """
    set_limits(rows, options, reader.runner.architecture)
    if not rows:
        return
    if timing is None:
        timing = Timing()
    began = time.perf_counter()
    logits, state = read_prompts(reader, rows, timing)
    timing.prefill_s += time.perf_counter() - began
    yield from decode_rows(reader, rows, logits, state, options, stop_ids, timing, began)


def read_prompts(reader: Reader, rows: Sequence[Row], timing: Timing) -> tuple[Array, Any]:
    """Reads the prompts of all rows, equal ones once.

    Returns the logits (B, 1, V) after them, and the state, with room for the limits of all rows.
    """
    ops = reader.runner.ops
    prompts = [tuple(row.prompt) for row in rows]
    distinct = list(dict.fromkeys(prompts))
    longest = max(map(len, distinct))
    logits, state = reader.prefill(distinct, longest + max(row.limit for row in rows))
    if len(rows) > len(distinct):
        order = [distinct.index(prompt) for prompt in prompts]
        state = state.fork(ops, order)
        logits = ops.take(logits, order, axis=0)
    ops.sync(logits)
    ops.release()
    for prompt in distinct:
        timing.add_prompt(len(prompt))
    return logits, state


def decode_rows(
    reader: Reader,
    rows: Sequence[Row],
    logits: Array,
    state: Any,
    options: Options,
    stop_ids: Collection[int],
    timing: Timing,
    began: float,
) -> Iterator[list[Row]]:
    """The steps of `generate` after the prompts.

    A device that works asynchronously gets the next step before the host waits for the tokens of
    this one, so it never waits for the host. If it turns out that the text ends with these tokens,
    or that the host draws other ones, the step that was already read is taken back.

    Args:
        reader: Computes the logits.
        rows: The rows, with their limits set.
        logits: (B, 1, V), after the prompts of all rows.
        state: The state after the prompts.
        options: How to choose ids.
        stop_ids: The ids that end a row.
        timing: Gets the times and counts.
        began: When the first step began, by `time.perf_counter`.

    Yields after each step the rows that got a token.
    """
    batch = Batch(reader, rows, state, options)
    choice = batch.choose(logits)
    while True:
        live = batch.unfinished()
        following = batch.read_ahead(choice)
        for row, token in choice.read(batch.rows):
            row.add(token)
            finish(row, stop_ids)
        timing.add_step(len(live), time.perf_counter() - began)
        yield live
        began = time.perf_counter()
        over = not batch.unfinished()
        if following is not None and (over or not choice.right):
            batch.take_back()
            following = None
        if over:
            return
        batch.step += 1
        if must_leave(batch.rows, reader.runner.architecture.context):
            following = batch.leave(following)
        if following is None:
            following = batch.choose(batch.read([row.ids[-1] for row in batch.rows]))
        choice = following


def finish(row: Row, stop_ids: Collection[int]) -> None:
    """Ends a row whose newest token is a stop id or the last that its limit allows."""
    if row.finish is not None:
        return
    if row.ids[-1] in stop_ids:
        row.finish = "stop"
    elif len(row.ids) >= row.limit:
        row.finish = "length"


class Batch:
    """Rows that are decoded together, their state, and the numbers that the device draws with.

    Rows that have ended remain in it until `leave`.
    """

    def __init__(self, reader: Reader, rows: Sequence[Row], state: Any, options: Options) -> None:
        self.reader, self.ops, self.options = reader, reader.runner.ops, options
        self.ahead = reader.ahead and self.ops.asynchronous
        self.set_rows(list(rows), state)

    def set_rows(self, rows: list[Row], state: Any) -> None:
        """Makes these the rows, and sends the uniform numbers for their tokens to the device."""
        self.rows, self.state = rows, state
        self.uniforms: Uniforms | None = None
        if self.ahead:
            self.uniforms = Uniforms.ahead(self.ops, rows, self.options)
        self.step = 0  # tokens that each row got since its numbers were sent

    def unfinished(self) -> list[Row]:
        return [row for row in self.rows if row.finish is None]

    def read(self, ids: Sequence[int] | Array) -> Array:
        """Reads one more token (B,) of each row. Returns the logits (B, 1, V) after it."""
        return decode(self.reader, ids, self.state)

    def choose(self, logits: Array, steps_on: int = 0) -> Choice:
        """The ids that follow logits (B, 1, V) of this step, or of the one `steps_on` later."""
        numbers = None
        if self.uniforms is not None:
            numbers = self.uniforms.at(self.step + steps_on)
        return Choice(self.ops, logits, self.options, numbers)

    def read_ahead(self, choice: Choice) -> Choice | None:
        """Requests the next choice while only the device knows the ids of this one.

        Returns it, or None if the host must know the ids first, or if all rows end with this step.
        """
        if not self.ahead or choice.ids is None:
            return None
        if all(len(row.ids) + 1 >= row.limit for row in self.unfinished()):
            return None
        self.state.mark()
        return self.choose(self.read(choice.ids), steps_on=1)

    def take_back(self) -> None:
        """Takes back the step that was read ahead."""
        self.state.rewind(self.state.length - 1)

    def leave(self, following: Choice | None) -> Choice | None:
        """Removes the rows that have ended.

        Returns the part of `following`, the next choice, that concerns the other rows.
        """
        going = unfinished(self.rows)
        self.set_rows([self.rows[i] for i in going], self.state.fork(self.ops, going))
        if following is None:
            return None
        return self.choose(self.ops.take(following.logits, going, axis=0)[:, None])


def must_leave(rows: Sequence[Row], context: int | None) -> bool:
    """Whether the rows that have ended should leave the batch.

    Each time, the state of the others is copied, so they leave only when they are half of the
    batch, or when they must: a row that remains reads tokens as long as the others do, and must
    not read more than the context.
    """
    going = unfinished(rows)
    if len(going) == len(rows):
        return False
    if len(going) <= len(rows) // 2:
        return True
    if context is None:
        return False
    steps = max(rows[i].limit for i in going)
    ended = [row for row in rows if row.finish is not None]
    return any(len(row.prompt) + steps > context for row in ended)
