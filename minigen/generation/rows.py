"""The rows of a run: what is generated after each prompt, its limits, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.errors import ContextError, UsageError
from minigen.generation.options import Options
from minigen.models.architecture import Architecture

DEFAULT_MAX_TOKENS = 256  # where none is asked for and the context has room


@dataclass(frozen=True)
class TokenLogprob:
    """The model's own log-probability of a generated token, and the best alternatives, before any
    sampling stage.
    """

    id: int
    logprob: float
    top: list[tuple[int, float]]


@dataclass
class Row:
    """One sequence being generated. `sequence` numbers the samples of a prompt: each draws its own
    uniforms.
    """

    prompt: list[int]
    sequence: int = 0
    limit: int = 0  # new tokens at most
    ids: list[int] = field(default_factory=list)  # new tokens, a stop token included
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: str | None = (
        None  # "stop" or "length" once it is done; a caller may set it to end the row
    )

    def __post_init__(self) -> None:
        self.tokens = (
            self.prompt + self.ids
        )  # kept beside, so that a step does not copy the whole text

    def add(self, token: int) -> None:
        self.ids.append(token)
        self.tokens.append(token)


@dataclass
class Timing:
    """Seconds and token counts of one run. The first token of each row comes with the prefill, the
    others by decode.

    What the caller does between the steps is not counted.
    """

    prompt_tokens: int = 0  # that were read
    prefill_s: float = 0.0  # until the logits after the prompts are there
    first_token_s: float = 0.0  # until the first token has been chosen
    decode_tokens: int = 0
    decode_s: float = 0.0
    drafted: int = 0  # by speculation: tokens that were guessed and read
    accepted: int = 0  # of these, those that were right; each saved a pass
    cached_tokens: int = 0  # with which every prompt begins and which were read before this run

    def add_prompt(self, tokens: int) -> None:
        """Counts a prompt of so many tokens."""
        self.prompt_tokens += tokens - self.cached_tokens

    def add_step(self, tokens: int, seconds: float) -> None:
        """Counts a step, of which the first has read the prompts."""
        if self.first_token_s == 0:
            self.first_token_s = seconds
        else:
            self.decode_tokens += tokens
            self.decode_s += seconds


def set_limits(rows: Sequence[Row], options: Options, architecture: Architecture) -> None:
    """Gives each row its limit, before any work is done.

    Raises UsageError for an id outside the vocabulary, ContextError where the prompt and the new
    tokens do not fit.
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
            raise UsageError(
                f"logit_bias names token {token}: this model's ids end at {vocab_size - 1}"
            )


def check_ids(ids: npt.ArrayLike, vocab_size: int) -> npt.NDArray[Any]:
    """The ids as an array (T,). Raises UsageError unless there is at least one and all are in the
    vocabulary.
    """
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
