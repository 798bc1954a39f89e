"""The turns of a session once more: do the same settings and seeds give the same tokens?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from minigen.chat.conversation import Conversation, Message, Run
from minigen.chat.engine import Answer, Chat
from minigen.chat.kept import check_vocabulary
from minigen.chat.schema import runs_fault
from minigen.errors import ChatError, ContextError
from minigen.generation.shared_text import common_length

NEWEST = 16  # tokens that may not stay: half a character, a stop token


@dataclass(frozen=True)
class Replayed:
    """One run of one answer. `at` is the first token that differs, counted from the answer's beginning, or None."""

    message: int  # of the spoken ones
    tokens: int  # compared
    at: int | None
    expected: str = ""  # the text from the first difference on
    got: str = ""
    skipped: str = ""  # why nothing was compared


def replay(chat: Chat, conversation: Conversation) -> Iterator[Replayed]:
    """Gives each answer again, with what was said before it as it was recorded, and compares it token for token.

    `chat` brings the model and is used up. Raises ChatError where the window of a run does not fit the conversation,
    or a token is none of the model's.
    """
    check_vocabulary(conversation, chat.model.architecture.vocab_size)
    context = chat.model.architecture.context
    for number, message in enumerate(conversation.spoken):
        if message.role == "user":
            continue
        if message.ids is None or not message.runs:
            yield Replayed(number, 0, None, skipped="its tokens are not on record")
            continue
        wrong = runs_fault(message, number)
        if wrong:  # a session's file was asked already
            raise ChatError(f"message {number + 1}: its runs do not fit its tokens: {wrong}")
        ends = [*(run.start for run in message.runs[1:]), len(message.ids)]
        for run, end in zip(message.runs, ends, strict=True):
            if run.tokens == 0:
                yield Replayed(number, 0, None, skipped="it was stopped before its first token")
                continue
            if run.sinks is not None or context is not None:
                chat.set_window("stop" if run.sinks is None else "sinks", run.sinks)
            try:
                yield compare(chat, conversation, number, run, message.ids[run.start : end])
            except ContextError:  # where answers before it are no longer the tokens that they were
                yield Replayed(
                    number, 0, None, skipped="what was said before it is longer in tokens now"
                )


def compare(
    chat: Chat, conversation: Conversation, number: int, run: Run, expected: tuple[int, ...]
) -> Replayed:
    """One run again, against the tokens that it gave."""
    whole = conversation.spoken[number]
    assert whole.ids is not None
    begun = Message("assistant", text_of(chat, whole.ids[: run.start]), whole.ids[: run.start])
    spoken = [*conversation.spoken[:number], *([begun] if run.start else [])]
    chat.conversation = Conversation(spoken, run.system)
    ids = chat.format.ids(chat.conversation, run.first, going_on=run.start > 0)
    settings = dict(run.settings) | (
        {"max_tokens": run.tokens} if run.finish == "interrupted" else {}
    )
    answer = Answer(chat, begun, ids, replace(run, settings=settings))
    for _ in answer:
        if differs_by_now(answer, expected):  # it need not go on to its own end, which may be far
            break
    new = (answer.finish().ids or ())[run.start :]
    if run.finish == "interrupted":  # what was on the way when it was stopped is not on record
        new = new[: len(expected)]
    same = common_length(new, expected)
    if same == len(new) == len(expected):
        return Replayed(number, len(expected), None)
    rest = (text_of(chat, ids[same:]) for ids in (expected, new))
    return Replayed(number, len(expected), run.start + same, *rest)


def differs_by_now(answer: Answer, expected: Sequence[int]) -> bool:
    """Whether an answer that is not over will not be the one on record: it has other tokens, or too many.

    The newest tokens may still be taken back, where a stop string or half a character is among them.
    """
    most = NEWEST + max(map(len, answer.text.stops.stops), default=0)
    said = answer.row.ids
    sure = said[: max(0, min(len(said), len(expected)) - most)]
    return len(said) > len(expected) + most or sure != list(expected[: len(sure)])


def text_of(chat: Chat, ids: tuple[int, ...]) -> str:
    return chat.tokenizer.decode(ids)
