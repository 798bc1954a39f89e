"""The rows of a run: what is generated after each prompt, its limits, and its cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.errors import ContextError, UsageError
from minigen.generation.options import Options
from minigen.models.architecture import Architecture

DEFAULT_MAX_TOKENS = 256  # if no number is given and the context has room


@dataclass(frozen=True)
class TokenLogprob:
    """The model's own log-probability of a generated token, before any sampling stage.

    `top` has the most likely tokens and their log-probabilities.
    """

    id: int
    logprob: float
    top: list[tuple[int, float]]


@dataclass
class Row:
    """One sequence that is being generated.

    `sequence` is the number of the sample among those of its prompt. Each draws with uniform
    numbers of its own.
    """

    prompt: list[int]
    sequence: int = 0
    limit: int = 0  # maximum number of new tokens
    ids: list[int] = field(default_factory=list)  # new tokens, a stop token included
    logprobs: list[TokenLogprob] = field(default_factory=list)
    # "stop" or "length" once the row has ended. A caller may set it to end the row.
    finish: str | None = None

    def __post_init__(self) -> None:
        # Prompt and ids, kept up to date so that a step does not copy the whole text.
        self.tokens = self.prompt + self.ids

    def add(self, token: int) -> None:
        self.ids.append(token)
        self.tokens.append(token)


@dataclass
class Timing:
    """Seconds and token counts of one run.

    The first token of each row belongs to the prefill, the others to decoding. The time that the
    caller takes between the steps is not counted.
    """

    prompt_tokens: int = 0  # without those that were read before this run
    prefill_s: float = 0.0  # until the logits after the prompts are computed
    first_token_s: float = 0.0  # until the first token is chosen
    decode_tokens: int = 0
    decode_s: float = 0.0
    drafted: int = 0  # speculation: tokens that were guessed and read
    accepted: int = 0  # drafted tokens that were right, each of which saved a pass
    cached_tokens: int = 0  # at the beginning of every prompt, read before this run

    def add_prompt(self, tokens: int) -> None:
        """Counts a prompt of `tokens` tokens."""
        self.prompt_tokens += tokens - self.cached_tokens

    def add_step(self, tokens: int, seconds: float) -> None:
        """Counts a step that added a token to `tokens` rows. The first also read the prompts."""
        if self.first_token_s == 0:
            self.first_token_s = seconds
        else:
            self.decode_tokens += tokens
            self.decode_s += seconds


def unfinished(rows: Sequence[Row]) -> list[int]:
    """The indices of the rows that have not ended."""
    return [i for i, row in enumerate(rows) if row.finish is None]


def set_limits(rows: Sequence[Row], options: Options, architecture: Architecture) -> None:
    """Sets the limit of each row, before any work is done.

    Raises UsageError for an id outside the vocabulary, and ContextError if a prompt and its new
    tokens do not fit into the context.
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
                f"the prompt has {len(row.prompt)} tokens and the model's context is "
                f"{architecture.context}: shorten it to leave room for an answer"
            )
        if max_tokens is not None and max_tokens > room:
            raise ContextError(
                f"a prompt of {len(row.prompt)} tokens and {max_tokens} new ones exceed the "
                f"model's context of {architecture.context}: ask for at most {room}"
            )
        row.limit = min(row.limit, room)


def check_bias(bias: Mapping[int, float], vocab_size: int) -> None:
    """Raises UsageError for a logit bias of an id outside the vocabulary."""
    for token in bias:
        if token >= vocab_size:
            raise UsageError(
                f"logit_bias names token {token}: this model's ids end at {vocab_size - 1}"
            )


def check_ids(ids: npt.ArrayLike, vocab_size: int) -> npt.NDArray[Any]:
    """The ids as an array (T,).

    Raises UsageError unless there is at least one id, and all are whole numbers in the vocabulary.
    """
    try:
        array = np.asarray(ids)
    except ValueError:  # lists of unequal lengths
        array = np.zeros((1, 1, 1))
    if array.size == 0:
        raise UsageError("the prompt is empty: give at least one token")
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise UsageError("token ids must be whole numbers, one list a row")
    for outermost in (array.min(), array.max()):
        if not 0 <= outermost < vocab_size:
            raise UsageError(
                f"token id {outermost} is outside the model's vocabulary of {vocab_size}"
            )
    return array
