"""The loop: prefill, one-token steps, and when to stop. It yields ids; `text.py` makes text of them.

Prefill and decode are separate functions, so that what is compiled or replaced by something faster is plain to see.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from minigen.backends.base import Array, Backend, Tree
from minigen.errors import ContextError, UsageError
from minigen.generation.choosing import Choice, TokenLogprob
from minigen.generation.drawing import Uniforms
from minigen.generation.options import Options
from minigen.models.architecture import Architecture

BLOCK = 512  # tokens of a text read in one forward pass, in a line or packed
DEFAULT_MAX_TOKENS = 256  # where none is asked for and the context has room


@dataclass
class Row:
    """One sequence being generated. `sequence` numbers the samples of a prompt: each draws its own uniforms."""

    prompt: list[int]
    sequence: int = 0
    limit: int = 0  # new tokens at most
    ids: list[int] = field(default_factory=list)  # new tokens, a stop token included
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: str | None = None  # "stop" or "length" once it is done; a caller may set it to end the row

    def __post_init__(self) -> None:
        self.tokens = self.prompt + self.ids  # kept beside, so that a step does not copy the whole text

    def add(self, token: int) -> None:
        self.ids.append(token)
        self.tokens.append(token)


@dataclass
class Timing:
    """Seconds and token counts of one run. The first token of each row comes with the prefill, the others by decode.

    What the caller does between the steps is not counted.
    """

    prompt_tokens: int = 0
    prefill_s: float = 0.0  # until the logits after the prompts are there
    first_token_s: float = 0.0  # until the first token has been chosen
    decode_tokens: int = 0
    decode_s: float = 0.0
    drafted: int = 0  # by speculation: tokens that were guessed and read
    accepted: int = 0  # of these, those that were right; each saved a pass


@dataclass(frozen=True)
class Runner:
    """A model ready to run: the backend, what the model is made of, and its weights.

    `ahead`: it can read tokens before anyone knows them, which `decode` gets as an array on the device.
    """

    ahead: ClassVar[bool] = True
    ops: Backend
    architecture: Architecture
    params: Tree

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> tuple[Array, Any]:
        """Reads prompts of any lengths as one batch, padded on the left.

        On a GPU by BLOCK, as one long pass may take more memory, and more time, than the device allows. Returns the
        logits (B, 1, V) after each prompt, and the state, with room for `capacity` tokens a row.
        """
        longest = max(map(len, prompts))
        starts = np.array([longest - len(prompt) for prompt in prompts])
        ids = np.array([[0] * int(pad) + list(prompt) for pad, prompt in zip(starts, prompts, strict=True)])
        state = self.architecture.new_state(
            self.ops, len(prompts), max(capacity, longest), starts if starts.any() else None
        )
        first = 0
        while self.ops.accelerated and longest - first > BLOCK:
            self.ops.sync(self.read(ids[:, first : first + BLOCK], state))
            self.ops.release()
            first += BLOCK
        return self.read(ids[:, first:], state), state

    def read(self, ids: Any, state: Any, at: Sequence[int] = (-1,)) -> Array:
        """Appends tokens (B, T), as lists, NumPy's, or on the device, to the state.

        Returns the logits (B, len(at), V) after some of them, the last if not said.
        """
        ids = np.asarray(ids) if isinstance(ids, Sequence) else ids

        def record(ops: Backend, tokens: Array) -> Array | None:
            return self.architecture.record(ops, self.params, tokens, state, at)

        logits = None if state.must_skip_padding else self.ops.replay(ids, state, tuple(at), record)
        if logits is None:
            tokens = self.ops.asarray(ids) if isinstance(ids, np.ndarray) else ids
            logits = self.architecture.forward(self.ops, self.params, tokens, state, at)
        return logits

    def decode(self, ids: Sequence[int] | Array, state: Any) -> Array:
        """One new token (B,) a row: the logits (B, 1, V) after it."""
        return self.read((np.asarray(ids) if isinstance(ids, Sequence) else ids)[:, None], state)


def set_limits(rows: Sequence[Row], options: Options, architecture: Architecture) -> None:
    """Gives each row its limit, before any work is done.

    Raises UsageError for an id outside the vocabulary, ContextError where the prompt and the new tokens do not fit.
    """
    check_bias(options.sampling.penalties.logit_bias, architecture.vocab_size)
    max_tokens = options.max_tokens
    for row in rows:
        check_ids(row.prompt, architecture.vocab_size)
        row.limit = max_tokens or DEFAULT_MAX_TOKENS
        if architecture.context is None:
            continue
        room = architecture.context - len(row.prompt)
        if room < 1:
            raise ContextError(
                f"the prompt has {len(row.prompt)} tokens and the model's context is {architecture.context}: "
                "shorten it to leave room for an answer"
            )
        if max_tokens is not None and max_tokens > room:
            raise ContextError(
                f"a prompt of {len(row.prompt)} tokens and {max_tokens} new ones exceed the model's context of "
                f"{architecture.context}: ask for at most {room}"
            )
        row.limit = min(row.limit, room)


def check_bias(bias: Mapping[int, float], vocab_size: int) -> None:
    """Raises UsageError for a logit bias of an id that the model does not have."""
    for token in bias:
        if token >= vocab_size:
            raise UsageError(f"logit_bias names token {token}: this model's ids end at {vocab_size - 1}")


def check_ids(ids: npt.ArrayLike, vocab_size: int) -> npt.NDArray[Any]:
    """The ids as an array (T,). Raises UsageError unless there is at least one and all are in the vocabulary."""
    try:
        array = np.asarray(ids)
    except ValueError:  # lists of unequal lengths
        array = np.zeros((1, 1, 1))
    if array.size == 0:
        raise UsageError("the prompt is empty: give at least one token")
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise UsageError("token ids must be whole numbers, one list a row")
    if array.min() < 0 or array.max() >= vocab_size:
        wrong = array.min() if array.min() < 0 else array.max()
        raise UsageError(f"token id {wrong} is outside the model's vocabulary of {vocab_size}")
    return array


def generate(
    runner: Runner,
    rows: Sequence[Row],
    options: Options,
    stop_ids: Collection[int] = (),
    timing: Timing | None = None,
) -> Iterator[list[Row]]:
    """Generates all rows as one batch. After each step yields the rows that got a token (the last of `row.ids`).

    A row ends at a stop id, at its limit, or when the caller sets `row.finish`. Equal prompts are read once. Raises
    as `set_limits` does, and MinigenError where the model produces NaN.
    """
    set_limits(rows, options, runner.architecture)
    if not rows:
        return
    timing = timing if timing is not None else Timing()
    ops = runner.ops
    began = time.perf_counter()
    distinct = list(dict.fromkeys(tuple(row.prompt) for row in rows))
    logits, state = runner.prefill(distinct, max(len(row.prompt) for row in rows) + max(row.limit for row in rows))
    if len(rows) > len(distinct):
        order = [distinct.index(tuple(row.prompt)) for row in rows]
        state, logits = state.fork(ops, order), ops.take(logits, order, axis=0)
    ops.sync(logits)
    ops.release()
    timing.prompt_tokens += sum(map(len, distinct))
    timing.prefill_s += time.perf_counter() - began
    yield from decode_rows(runner, rows, logits, state, options, stop_ids, timing, began)


def decode_rows(
    runner: Runner,
    rows: Sequence[Row],
    logits: Array,
    state: Any,
    options: Options,
    stop_ids: Collection[int],
    timing: Timing,
    began: float,
) -> Iterator[list[Row]]:
    """What `generate` does after the prompts: `logits` (B, 1, V) and `state` are those after them, of all rows, each
    of which has its limit.

    Where the device works by itself, it is given the next step before the host waits for the tokens of this one, and so
    never waits for the host. Whether the text ends with them, or the host draws others, is seen a step late: that step
    is taken back.
    """
    ops, held = runner.ops, list(rows)  # the rows of the state, of which some may have ended
    ahead = runner.ahead and ops.asynchronous
    uniforms = Uniforms.ahead(ops, held, options) if ahead else None

    def choose(logits: Array, step: int) -> Choice:
        return Choice(ops, logits, options, None if uniforms is None else uniforms.at(step))

    choice, step = choose(logits, 0), 0  # `step`: the tokens that the rows got since `uniforms` were made
    while True:
        live, following = [row for row in held if row.finish is None], None
        if ahead and choice.ids is not None and any(len(row.ids) + 1 < row.limit for row in live):
            state.mark()
            logits = runner.decode(choice.ids, state)
            following = choose(logits, step + 1)
        for row, token in choice.read(held):
            row.add(token)
            full = len(row.ids) >= row.limit
            row.finish = row.finish or ("stop" if token in stop_ids else "length" if full else None)
        now = time.perf_counter()
        if timing.first_token_s == 0:
            timing.first_token_s = now - began
        else:
            timing.decode_tokens += len(live)
            timing.decode_s += now - began
        yield live
        began = time.perf_counter()
        going = [i for i, row in enumerate(held) if row.finish is None]
        if not going:
            if following is not None:
                state.rewind(state.length - 1)
            return
        step += 1
        if following is not None and not choice.right:
            following = None
            state.rewind(state.length - 1)
        if must_leave(held, going, runner.architecture.context):
            state, held = state.fork(ops, going), [held[i] for i in going]
            uniforms, step = Uniforms.ahead(ops, held, options) if ahead else None, 0
            following = following and choose(ops.take(logits, going, axis=0), step)
        choice = following or choose(runner.decode([row.ids[-1] for row in held], state), step)


def must_leave(held: Sequence[Row], going: Sequence[int], context: int | None) -> bool:
    """Whether rows that ended are to leave the batch: by halves, as each time the rest is copied, or by necessity.

    A row that stays goes on reading tokens as long as the others, and must not run past the context.
    """
    ended = [row for row in held if row.finish is not None]
    steps = max(held[i].limit for i in going)
    beyond = context is not None and any(len(row.prompt) + steps > context for row in ended)
    return bool(ended) and (beyond or len(going) <= len(held) // 2)
