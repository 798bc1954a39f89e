"""Explains the last answer: each token's probability, its alternatives, what each stage removed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from minigen.chat.conversation import Conversation
from minigen.chat.engine import Chat
from minigen.errors import UsageError
from minigen.generation.options import Options
from minigen.sampling import Sampling, sample, stages
from minigen.sampling.numeric import FloatArray, best, softmax

ROWS_AT_ONCE = 64  # rows of logits in memory at once: a vocabulary may be large


@dataclass(frozen=True)
class Removed:
    """The tokens that a sampling stage removed, and their probability before it."""

    stage: str
    tokens: int
    probability: float


@dataclass(frozen=True)
class TokenChoice:
    """A generated token and its likeliest alternatives, each with two probabilities."""

    token: int
    probability: float  # by the model
    drawn_from: float  # its probability after all stages, from which it was drawn
    candidates: list[tuple[int, float, float]]  # (id, by the model, after all stages)
    removed: list[Removed]
    ends: bool = False  # a stop token, which is not part of the answer


def explain(chat: Chat, candidates: int = 3) -> Iterator[TokenChoice]:
    """Every token of the last run of the last answer, by the model's logits, computed again.

    Raises UsageError if there is no answer, if its tokens are not recorded, or if the model's
    window has changed since.
    """
    conversation = chat.conversation
    message = conversation.last_answer()
    if message.ids is None or not message.runs:
        raise UsageError(
            "it is not recorded how this answer was generated: "
            "it was loaded, or written by another model"
        )
    run = message.runs[-1]
    sinks = chat.window.size if chat.window.policy == "sinks" else None
    if run.sinks != sinks:
        raise UsageError(
            "the window has changed since that answer: set overflow and context as they were"
        )
    sampling = Options.of(**run.settings).sampling
    prompt = chat.format.ids(Conversation(conversation.spoken[:-1], run.system), run.first)
    start = len(prompt) + run.start
    tokens = [*prompt, *message.ids]
    stop = len(tokens)
    if run.finish == "stop":
        stop += 1  # the stop token, which is not recorded
    for begin in range(start, stop, ROWS_AT_ONCE):
        end = min(begin + ROWS_AT_ONCE, stop)
        logits = chat.shared.seek(tokens[:end], range(begin - 1, end - 1))
        for position, row in enumerate(chat.shared.runner.ops.numpy(logits), begin):
            yield _explain_token(tokens, position, row, start, sampling, candidates)


def _explain_token(
    tokens: Sequence[int],
    position: int,
    logits: FloatArray,
    start: int,
    sampling: Sampling,
    candidates: int,
) -> TokenChoice:
    """The choice of the token at a position, which is drawn again if it comes after the last one.

    `start` is where the run began, and `logits` (V,) are those before the position.
    """
    before = tokens[:position]
    ends = position == len(tokens)
    token = sample(logits, before, start, sampling) if ends else tokens[position]
    steps = [(name, softmax(values)) for name, values in stages(logits, before, start, sampling)]
    removed: list[Removed] = []
    for (_, earlier), (name, later) in pairwise(steps):
        gone = (later == 0) & (earlier > 0)
        if gone.any():
            removed.append(Removed(name, int(gone.sum()), float(earlier[gone].sum())))
    first, last = steps[0][1], steps[-1][1]
    top = [(int(i), float(first[i]), float(last[i])) for i in best(first, candidates)]
    return TokenChoice(token, float(first[token]), float(last[token]), top, removed, ends)
