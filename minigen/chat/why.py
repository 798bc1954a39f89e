"""Why the last answer reads as it does: for each token its probability, the alternatives, what each stage removed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from minigen.chat.conversation import Conversation
from minigen.chat.engine import Chat
from minigen.errors import UsageError
from minigen.generation.options import Options
from minigen.sampling import sample, stages
from minigen.sampling.numeric import best, softmax

AT_ONCE = 64  # rows of logits that are looked at together: a vocabulary may be large


@dataclass(frozen=True)
class Removed:
    """What a sampling stage took away: so many tokens, which had this probability before it."""

    stage: str
    tokens: int
    probability: float


@dataclass(frozen=True)
class Choice:
    """A token, with its probability by the model and after all stages, and the best candidates of the model's."""

    token: int
    probability: float
    drawn_from: float
    candidates: list[tuple[int, float, float]]  # (id, by the model, after all stages)
    removed: list[Removed]
    ends: bool = False  # it ended the answer, and is no part of it


def explain(chat: Chat, candidates: int = 3) -> Iterator[Choice]:
    """The choices of the last run of the last answer, from the logits that the model gives again.

    Raises UsageError where there is no answer, its tokens are not known, or the model would see other tokens now.
    """
    talk = chat.conversation
    message = talk.last_answer()
    if message.ids is None or not message.runs:
        raise UsageError(
            "how this answer came about is not on record: it was loaded, or written by another model"
        )
    run = message.runs[-1]
    if run.sinks != (chat.window.size if chat.window.policy == "sinks" else None):
        raise UsageError(
            "the window has changed since that answer: /set overflow and /set context as they were show it"
        )
    sampling = Options.of(**run.settings).sampling
    prompt = chat.format.ids(Conversation(talk.spoken[:-1], run.system), run.first)
    start = len(prompt) + run.start
    tokens = [*prompt, *message.ids]
    ended = run.finish == "stop"
    for begin in range(start, len(tokens) + ended, AT_ONCE):
        end = min(begin + AT_ONCE, len(tokens) + ended)
        logits = chat.shared.seek(tokens[:end], range(begin - 1, min(end, len(tokens) + 1) - 1))
        for at, row in enumerate(chat.shared.runner.ops.numpy(logits), begin):
            said = tokens[:at]
            token = tokens[at] if at < len(tokens) else sample(row, said, start, sampling)
            steps = [(name, softmax(values)) for name, values in stages(row, said, start, sampling)]
            first, last = steps[0][1], steps[-1][1]
            removed = []
            for (_, before), (name, after) in pairwise(steps):
                gone = (after == 0) & (before > 0)
                if gone.any():
                    removed.append(Removed(name, int(gone.sum()), float(before[gone].sum())))
            listed = [(int(i), float(first[i]), float(last[i])) for i in best(first, candidates)]
            yield Choice(
                token, float(first[token]), float(last[token]), listed, removed, at == len(tokens)
            )
