"""Generates the answers of a session again: do the same settings and seeds give the same tokens?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from minigen.chat.conversation import Conversation, Message, Run
from minigen.chat.engine import Answer, Chat
from minigen.chat.kept import check_vocabulary
from minigen.chat.schema import runs_fault
from minigen.errors import ChatError, ContextError
from minigen.generation.shared_text import common_length

NEWEST = 16  # last tokens that may still be removed: half a character, a stop token


@dataclass(frozen=True)
class Replayed:
    """The comparison of one run of one answer."""

    message: int  # index of the answer in the conversation
    tokens: int  # number of tokens compared
    at: int | None  # the first token of the answer that differs; None: they are all the same
    expected: str = ""  # the text from the first difference on
    got: str = ""
    skipped: str = ""  # why nothing was compared


def replay(chat: Chat, conversation: Conversation) -> Iterator[Replayed]:
    """Generates each answer again after the recorded messages, and compares it token by token.

    `chat` provides the model; its conversation is overwritten. Raises ChatError if the window of a
    run does not fit the conversation, or a token is not in the model's vocabulary.
    """
    check_vocabulary(conversation, chat.model.architecture.vocab_size)
    context = chat.model.architecture.context
    for number, message in enumerate(conversation.spoken):
        if message.role == "user":
            continue
        if message.ids is None or not message.runs:
            yield Replayed(number, 0, None, skipped="its tokens are not recorded")
            continue
        problem = runs_fault(message, number)
        if problem:  # not from a session's file, which was checked
            raise ChatError(f"message {number + 1}: its runs do not fit its tokens: {problem}")
        ends = [*(run.start for run in message.runs[1:]), len(message.ids)]
        for run, end in zip(message.runs, ends, strict=True):
            if run.tokens == 0:
                yield Replayed(number, 0, None, skipped="it was stopped before its first token")
                continue
            if run.sinks is not None:
                chat.set_window("sinks", run.sinks)
            elif context is not None:
                chat.set_window("stop", None)
            try:
                yield compare(chat, conversation, number, run, message.ids[run.start : end])
            except ContextError:  # the recorded tokens of earlier answers are no longer used
                skipped = "the messages before it have more tokens now"
                yield Replayed(number, 0, None, skipped=skipped)


def compare(
    chat: Chat, conversation: Conversation, number: int, run: Run, expected: tuple[int, ...]
) -> Replayed:
    """Repeats one run of an answer and compares it with the tokens that it generated then."""
    recorded = conversation.spoken[number]
    assert recorded.ids is not None
    earlier_ids = recorded.ids[: run.start]
    begun = Message("assistant", text_of(chat, earlier_ids), earlier_ids)
    spoken = list(conversation.spoken[:number])
    if run.start > 0:
        spoken.append(begun)
    chat.conversation = Conversation(spoken, run.system)
    ids = chat.format.ids(chat.conversation, run.first, going_on=run.start > 0)
    settings = dict(run.settings)
    if run.finish == "interrupted":
        settings["max_tokens"] = run.tokens
    answer = Answer(chat, begun, ids, replace(run, settings=settings))
    for _ in answer:
        if has_diverged(answer, expected):  # its own end may be far away
            break
    new = (answer.finish().ids or ())[run.start :]
    if run.finish == "interrupted":  # tokens that were on the way then are not recorded
        new = new[: len(expected)]
    same = common_length(new, expected)
    if same == len(new) == len(expected):
        return Replayed(number, len(expected), None)
    return Replayed(
        number,
        len(expected),
        run.start + same,
        text_of(chat, expected[same:]),
        text_of(chat, new[same:]),
    )


def has_diverged(answer: Answer, expected: Sequence[int]) -> bool:
    """Whether an unfinished answer already has other tokens than the expected ones, or too many.

    Its newest tokens may still be removed, if they are half a character or part of a stop string.
    """
    longest_stop = max((len(stop) for stop in answer.text.stops.stops), default=0)
    removable = NEWEST + longest_stop
    ids = answer.row.ids
    if len(ids) > len(expected) + removable:
        return True
    certain = max(0, min(len(ids), len(expected)) - removable)
    return list(ids[:certain]) != list(expected[:certain])


def text_of(chat: Chat, ids: tuple[int, ...]) -> str:
    return chat.tokenizer.decode(ids)
