"""The loop: prompts are read, and then each step chooses an id for each row, stops rows, and reads.

A Reader reads (`reader.py`), a Choice chooses (`choosing.py`), `finish` stops. What comes out are
ids: `text.py` makes text of them.
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
from minigen.generation.rows import Row, Timing, set_limits


def generate(
    reader: Reader,
    rows: Sequence[Row],
    options: Options,
    stop_ids: Collection[int] = (),
    timing: Timing | None = None,
) -> Iterator[list[Row]]:
    """Generates all rows as one batch, and yields after each step the rows that got a token.

    The token is the last of `row.ids`. A row ends at a stop id, at its limit, or when the caller
    sets `row.finish`. Equal prompts are read once. Raises as `set_limits` does, and MinigenError
    where the model produces NaN.
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
    """Reads the prompts of all rows, equal ones once, with room for what their limits allow.

    Returns the logits (B, 1, V) after them, and the state.
    """
    ops = reader.runner.ops
    distinct = list(dict.fromkeys(tuple(row.prompt) for row in rows))
    longest = max(map(len, distinct))
    logits, state = reader.prefill(distinct, longest + max(row.limit for row in rows))
    if len(rows) > len(distinct):
        order = [distinct.index(tuple(row.prompt)) for row in rows]
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
    """The steps of `generate` after the prompts, for rows that have their limits.

    `logits` (B, 1, V) and `state` are those after the prompts of all rows; the first step `began`
    at this time, as `time.perf_counter` has it.

    Where the device works by itself, it is given the next step before the host waits for the tokens
    of this one, and so never waits for the host. Whether the text ends with them, or the host draws
    others, is seen a step late: that step is taken back.
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
        choice = following or batch.choose(batch.read([row.ids[-1] for row in batch.rows]))


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

    Rows that have ended stay among them until they `leave`.
    """

    def __init__(self, reader: Reader, rows: Sequence[Row], state: Any, options: Options) -> None:
        self.reader, self.ops, self.options = reader, reader.runner.ops, options
        self.ahead = reader.ahead and self.ops.asynchronous
        self.take(list(rows), state)

    def take(self, rows: list[Row], state: Any) -> None:
        """Makes these the rows, and sends the numbers that they are drawn with."""
        self.rows, self.state = rows, state
        self.uniforms = Uniforms.ahead(self.ops, rows, self.options) if self.ahead else None
        self.step = 0  # tokens that each row got since its numbers were sent

    def unfinished(self) -> list[Row]:
        return [row for row in self.rows if row.finish is None]

    def read(self, ids: Sequence[int] | Array) -> Array:
        """The logits (B, 1, V) after one more token (B,) of each row."""
        return decode(self.reader, ids, self.state)

    def choose(self, logits: Array, steps_on: int = 0) -> Choice:
        """The ids that follow logits (B, 1, V) of this step, or of the one `steps_on` later."""
        drawn = None if self.uniforms is None else self.uniforms.at(self.step + steps_on)
        return Choice(self.ops, logits, self.options, drawn)

    def read_ahead(self, choice: Choice) -> Choice | None:
        """The next choice, asked for while only the device knows the ids of this one.

        None where the host must know them first, or no row goes on.
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
        """Goes on without the rows that have ended.

        Returns what was chosen ahead for the others, if anything was.
        """
        going = [i for i, row in enumerate(self.rows) if row.finish is None]
        self.take([self.rows[i] for i in going], self.state.fork(self.ops, going))
        if following is None:
            return None
        return self.choose(self.ops.take(following.logits, going, axis=0)[:, None])


def must_leave(rows: Sequence[Row], context: int | None) -> bool:
    """Whether rows that ended are to leave the batch: when they are half of it, or by necessity.

    Each time the rest is copied. A row that stays reads tokens as long as the others do, and must
    not run past the context.
    """
    ended = [row for row in rows if row.finish is not None]
    going = [row for row in rows if row.finish is None]
    if not ended:
        return False
    if len(going) <= len(rows) // 2:
        return True
    steps = max(row.limit for row in going)
    return context is not None and any(len(row.prompt) + steps > context for row in ended)
