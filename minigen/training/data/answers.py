"""Where the answers of a conversation stand in its text, as a chat template writes it: found exactly, or refused.

An answer is what the model has to write itself: all that follows the text which a chat reads before it (the template's
own rendering up to there, with its generation prompt), up to and with what ends the turn. So Mistral's space before an
answer belongs to it, and Qwen3's empty thoughts do; a header never does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from minigen.chat.marks import MARK, unused_mark
from minigen.training.data.documents import Chat
from minigen.training.data.sources import DataError

Messages = Sequence[Mapping[str, Any]]


class ChatRenderer(Protocol):
    """A chat format, such as a model's chat template."""

    @property
    def source(self) -> str:
        """What tells it from another format, such as the text of the template."""

    @property
    def special(self) -> Mapping[str, str]:
        """The control tokens that it writes, by their names in the template."""

    def render(self, messages: Messages, *, generate: bool) -> str:
        """The text of a conversation; with `generate`, up to where the next answer begins."""


@dataclass(frozen=True)
class Answer:
    """The text from `begin` to `end` of a rendered conversation; `before` is all that stands before it."""

    before: str
    end: int
    ended: bool  # by a control token; else by text, or by nothing at all
    last: bool  # nothing stands after it
    asked: bool  # `before` is what a chat reads first, white space and all

    @property
    def begin(self) -> int:
        return len(self.before)


def find_answers(
    chat: Chat, renderer: ChatRenderer, whole: str, control: Collection[str], eos: str
) -> list[Answer]:
    """The assistant's parts of `whole`, the text of a conversation. `control`: the texts of the control tokens, and
    `eos` that of the one that ends a text, or "".

    Raises DataError where the template does anything with a message that makes it doubtful which text answers it.
    """
    places = [
        place for place, message in enumerate(chat.messages) if message["role"] == "assistant"
    ]
    if places[0] == 0:
        raise DataError(
            f"{chat.where}: the assistant speaks first: begin with a system or user message"
        )
    return [find_answer(chat, renderer, whole, place, control, eos) for place in places]


def find_answer(
    chat: Chat, renderer: ChatRenderer, whole: str, place: int, control: Collection[str], eos: str
) -> Answer:
    number, content = place + 1, chat.messages[place]["content"]
    before = prompt = renderer.render(chat.messages[:place], generate=True)
    head, rest = around_message(chat, renderer, place, len(chat.messages))
    if not whole.startswith(prompt):
        if not whole.startswith(head) or head.split() != prompt.split():
            raise DataError(f"{chat.where}: {why_not_before(chat, renderer, whole, place, prompt)}")
        before = head.rstrip(
            " "
        )  # many a template has line breaks after its prompt that it has nowhere else
    end = len(whole) - len(rest)
    if end < len(before) or not whole.endswith(rest):
        raise DataError(
            f"{chat.where}: what the chat format writes after message {number} depends on its text, so the two cannot "
            "be told apart: use another format (--chat)"
        )
    if not holds(whole[len(before) : end], content) and not thinks(
        chat, renderer, whole[:end], place
    ):
        raise DataError(
            f"{chat.where}: the chat format changes the text of message {number}, or leaves a part of it out (it "
            f"begins with {content.strip()[:20]!r}): write it as the format does; where thoughts of earlier answers "
            "are dropped, end the row with this message"
        )
    check_header(chat, renderer, place, before, head)
    own = around_message(chat, renderer, place, number)[1]
    length, ended = end_of_turn(
        rest,
        own,
        lambda: around_message(chat, renderer, place - 1, len(chat.messages))[1],
        control,
        eos,
    )
    return Answer(before, end + length, ended, last=not rest, asked=whole.startswith(prompt))


def around_message(chat: Chat, renderer: ChatRenderer, place: int, count: int) -> tuple[str, str]:
    """What the first `count` messages give before and after the text of one of them."""
    mark = unused_mark(message["content"] for message in chat.messages)
    marked: list[Mapping[str, Any]] = [*chat.messages[:count]]
    marked[place] = {**marked[place], "content": mark}
    parts = renderer.render(marked, generate=False).split(mark)
    if len(parts) != 2:
        times = "not at all" if len(parts) < 2 else f"{len(parts) - 1} times"
        raise DataError(
            f"{chat.where}: the chat format writes message {place + 1} {times}, so what is learned of it cannot be "
            "told: give each answer a row of its own, or use another format (--chat)"
        )
    return parts[0], parts[1]


def holds(text: str, content: str) -> bool:
    """Whether a message stands in a text, but for white space: many templates strip it, some write their own."""
    return "".join(content.split()) in "".join(text.split())


def left_out(chat: Chat, renderer: ChatRenderer, whole: str) -> list[str]:
    """Whose messages, beside the assistant's, do not stand in the text as they are."""
    marked: list[Mapping[str, Any]] = []
    for place, message in enumerate(chat.messages):
        mine = message["role"] == "assistant"
        marked.append(message if mine else {**message, "content": f"{MARK}{place}{MARK}"})
    text = renderer.render(marked, generate=False)
    others = [
        (place, message)
        for place, message in enumerate(chat.messages)
        if message["role"] != "assistant"
    ]
    lost = [
        m["role"]
        for place, m in others
        if f"{MARK}{place}{MARK}" not in text or not holds(whole, m["content"])
    ]
    return list(dict.fromkeys(lost))


def thinks(chat: Chat, renderer: ChatRenderer, text: str, place: int) -> bool:
    """Whether a message stands in the text although its beginning, such as <think>, is in the generation prompt."""
    bare = renderer.render(chat.messages[:place], generate=False)
    return text.startswith(bare) and holds(text[len(bare) :], chat.messages[place]["content"])


def check_header(chat: Chat, renderer: ChatRenderer, place: int, before: str, head: str) -> None:
    """Refuses a format without a generation prompt, where the model would have to learn the header of its turn."""
    lead = head[len(before) :] if head.startswith(before) else ""
    if lead.strip() and renderer.render(chat.messages[:place], generate=False) == before:
        raise DataError(
            f"{chat.where}: the chat format has no generation prompt, so {lead!r} would be the model's to write: let "
            "the template write it where add_generation_prompt is true, or use another format (--chat)"
        )


def end_of_turn(
    rest: str, own: str, said: Callable[[], str], control: Collection[str], eos: str
) -> tuple[int, bool]:
    """How much of `rest`, all that follows an answer's text, belongs to its turn, and whether a control token ends it.

    `own` is what follows the text while it is the last one, `said` what follows the message before it. The first
    control token after the text ends a turn if it is the same in `own`, or if it is `eos`, or if it is the same in
    `said` (some formats end the last turn of all with another one); else it is the next header's.
    """
    here, there = first_control(rest, control), first_control(own, control)
    if here is not None:
        space, name = here
        is_eos = name == eos and not rest[:space].strip()
        if (
            here == there
            or is_eos
            or (there is not None and here == first_control(said(), control))
        ):
            return space + len(name), True
    if rest.startswith(own):
        return len(own), False
    leads = [text[: len(text) - len(text.lstrip())] for text in (own, rest)]
    return len(os.path.commonprefix(leads)), False  # noqa: RUF071, of texts


def first_control(text: str, control: Collection[str]) -> tuple[int, str] | None:
    """The first control token in a text and its place; of several there the longest, as a tokenizer takes it."""
    found = [(text.find(name), -len(name), name) for name in control if name and name in text]
    return (min(found)[0], min(found)[2]) if found else None


def why_not_before(chat: Chat, renderer: ChatRenderer, whole: str, place: int, before: str) -> str:
    """Which habit of a template makes a chat read another text before an answer than stands there in the end."""
    what = f"the chat format changes what stands before message {place + 1} when that is added"
    bare = renderer.render(chat.messages[:place], generate=False)
    if whole.startswith(bare) and before.startswith(bare):
        asked = before[len(bare) :]
        written = whole[len(bare) : len(before)]
        return (
            f"{what}: it asks for it with {asked[:40]!r} and then writes {written[:40]!r}, so a chat would read "
            "another text than is learned: let the row have what belongs in between, or use another format (--chat)"
        )
    if chat.messages[0]["role"] == "system" and place > 1:
        spoken = chat.messages[1:]
        if renderer.render(spoken, generate=False).startswith(
            renderer.render(spoken[: place - 1], generate=True)
        ):
            return (
                f"{what}: it writes the system message elsewhere then, or not at all; leave the system message out of "
                "the row, or put it into the user's"
            )
    return (
        f"{what}, so what was said cannot be told from what answers it: give each answer a row of its own, which ends "
        "with it, or use another format (--chat)"
    )
