"""Finds the answers in the text of a conversation that a chat template has rendered.

They are found exactly, or the conversation is refused. An answer is what the model has to generate:
everything after the text that a chat reads before it (the template's rendering up to there, with
its generation prompt), up to and including the end of the turn. Mistral's space before an answer
belongs to it, and so do Qwen3's empty thoughts; a header never does.
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

_MARK = "\ue000"  # a private-use character, which is in no template and no conversation


class ChatRenderer(Protocol):
    """A chat format, such as a model's chat template."""

    @property
    def source(self) -> str:
        """The identity of the format, such as the text of the template."""

    @property
    def special(self) -> Mapping[str, str]:
        """The control tokens that the template may write, by their names in it."""

    def render(self, messages: Messages, *, generate: bool) -> str:
        """The text of a conversation; with `generate`, up to the beginning of the next answer."""


@dataclass(frozen=True)
class Answer:
    """The text from `begin` to `end` of a rendered conversation."""

    before: str  # all of the text before it
    end: int
    ended: bool  # by a control token; otherwise by text, or by nothing
    last: bool  # nothing comes after it
    asked: bool  # `before` is exactly what a chat reads before the answer

    @property
    def begin(self) -> int:
        return len(self.before)


def find_answers(
    chat: Chat, renderer: ChatRenderer, whole: str, control: Collection[str], eos: str
) -> list[Answer]:
    """The assistant's parts of `whole`, the text of a conversation.

    `control` are the texts of the control tokens; `eos` is that of the end token, or "". Raises
    DataError if the template makes it doubtful which text belongs to an answer.
    """
    indices = [i for i, message in enumerate(chat.messages) if message["role"] == "assistant"]
    if indices[0] == 0:
        raise DataError(
            f"{chat.where}: the first message is the assistant's: begin with one of system or user"
        )
    return [find_answer(chat, renderer, whole, i, control, eos) for i in indices]


def find_answer(
    chat: Chat, renderer: ChatRenderer, whole: str, index: int, control: Collection[str], eos: str
) -> Answer:
    """The part of `whole` that is the answer with this index, as `find_answers`."""
    content = chat.messages[index]["content"]
    prompt = renderer.render(chat.messages[:index], generate=True)
    head, rest = around_message(chat, renderer, index, len(chat.messages))
    before = prompt
    if not whole.startswith(prompt):
        if not whole.startswith(head) or head.split() != prompt.split():
            raise DataError(f"{chat.where}: {why_not_before(chat, renderer, whole, index, prompt)}")
        before = head.rstrip(" ")  # many templates have line breaks only at the end of a prompt
    end = len(whole) - len(rest)
    if end < len(before) or not whole.endswith(rest):
        raise DataError(
            f"{chat.where}: the chat format writes a text after message {index + 1} that depends "
            "on the message, so the two cannot be separated: use another format (--chat)"
        )
    answer_text = whole[len(before) : end]
    if not contains(answer_text, content) and not thinks(chat, renderer, whole[:end], index):
        raise DataError(
            f"{chat.where}: the chat format changes the text of message {index + 1}, or leaves a "
            f"part of it out (it begins with {content.strip()[:20]!r}): write it as the format "
            "does; if it drops the thoughts of earlier answers, end the row with this message"
        )
    check_header(chat, renderer, index, before, head)
    _, alone_rest = around_message(chat, renderer, index, index + 1)

    def rest_of_question() -> str:
        return around_message(chat, renderer, index - 1, len(chat.messages))[1]

    length, ended = end_of_turn(rest, alone_rest, rest_of_question, control, eos)
    return Answer(before, end + length, ended, last=not rest, asked=whole.startswith(prompt))


def around_message(chat: Chat, renderer: ChatRenderer, index: int, count: int) -> tuple[str, str]:
    """The text of the first `count` messages, before and after the content of one of them."""
    mark = unused_mark(message["content"] for message in chat.messages)
    marked: list[Mapping[str, Any]] = [*chat.messages[:count]]
    marked[index] = {**marked[index], "content": mark}
    parts = renderer.render(marked, generate=False).split(mark)
    if len(parts) != 2:
        times = "not at all" if len(parts) < 2 else f"{len(parts) - 1} times"
        raise DataError(
            f"{chat.where}: the chat format writes message {index + 1} {times}, so its tokens "
            "cannot be found: give each answer a row of its own, or use another format (--chat)"
        )
    return parts[0], parts[1]


def contains(text: str, content: str) -> bool:
    """Whether a text contains a message, except for white space, which many templates change."""
    return "".join(content.split()) in "".join(text.split())


def left_out(chat: Chat, renderer: ChatRenderer, whole: str) -> list[str]:
    """The roles, other than the assistant's, whose messages the text lacks or has changed."""
    marked: list[Mapping[str, Any]] = []
    marks: dict[int, str] = {}
    for i, message in enumerate(chat.messages):
        if message["role"] == "assistant":
            marked.append(message)
        else:
            marks[i] = f"{MARK}{i}{MARK}"
            marked.append({**message, "content": marks[i]})
    text = renderer.render(marked, generate=False)
    roles: list[str] = []
    for i, mark in marks.items():
        message = chat.messages[i]
        if mark not in text or not contains(whole, message["content"]):
            roles.append(message["role"])
    return list(dict.fromkeys(roles))


def thinks(chat: Chat, renderer: ChatRenderer, text: str, index: int) -> bool:
    """Whether the text has a message whose beginning, as <think>, is in the generation prompt."""
    bare = renderer.render(chat.messages[:index], generate=False)
    return text.startswith(bare) and contains(text[len(bare) :], chat.messages[index]["content"])


def check_header(chat: Chat, renderer: ChatRenderer, index: int, before: str, head: str) -> None:
    """Refuses a format without a generation prompt: the model would have to learn its header."""
    header = head[len(before) :] if head.startswith(before) else ""
    if header.strip() and renderer.render(chat.messages[:index], generate=False) == before:
        raise DataError(
            f"{chat.where}: the chat format has no generation prompt, so the model would have to "
            f"write {header!r}: let the template write it if add_generation_prompt is true, or "
            "use another format (--chat)"
        )


def end_of_turn(
    rest: str,
    alone_rest: str,
    rest_of_question: Callable[[], str],
    control: Collection[str],
    eos: str,
) -> tuple[int, bool]:
    """How much of the text after an answer ends its turn, and whether a control token does.

    `rest` is all of the text after the answer, `alone_rest` that after it if it is the last
    message, `rest_of_question` that after the message before it. The first control token in `rest`
    ends the turn if it is also the first in `alone_rest`, if it is `eos`, or if it is also the
    first in `rest_of_question` (some formats end the very last turn differently). Otherwise it
    belongs to the next header.
    """
    first = first_control(rest, control)
    alone_first = first_control(alone_rest, control)
    if first is not None:
        position, name = first
        ends_turn = first == alone_first
        if name == eos and not rest[:position].strip():
            ends_turn = True
        if not ends_turn and alone_first is not None:
            ends_turn = first == first_control(rest_of_question(), control)
        if ends_turn:
            return position + len(name), True
    if rest.startswith(alone_rest):
        return len(alone_rest), False
    return common_length(leading_space(alone_rest), leading_space(rest)), False


def leading_space(text: str) -> str:
    return text[: len(text) - len(text.lstrip())]


def common_length(a: str, b: str) -> int:
    """How many characters two texts share at their beginning."""
    return len(os.path.commonprefix([a, b]))  # noqa: RUF071, for texts


def first_control(text: str, control: Collection[str]) -> tuple[int, str] | None:
    """(position, name) of the first control token in a text; the longest of several there."""
    positions = [(text.find(name), -len(name), name) for name in control if name and name in text]
    if not positions:
        return None
    position, _, name = min(positions)
    return position, name


def why_not_before(chat: Chat, renderer: ChatRenderer, whole: str, index: int, prompt: str) -> str:
    """Why the text before an answer is not the prompt that a chat reads there."""
    problem = f"the chat format changes the text before message {index + 1} when that is added"
    bare = renderer.render(chat.messages[:index], generate=False)
    if whole.startswith(bare) and prompt.startswith(bare):
        generation_prompt = prompt[len(bare) :][:40]
        written = whole[len(bare) : len(prompt)][:40]
        return (
            f"{problem}: it asks for it with {generation_prompt!r} and then writes {written!r}, "
            "so a chat would read another text than is learned: add what belongs in between to "
            "the row, or use another format (--chat)"
        )
    if chat.messages[0]["role"] == "system" and index > 1:
        others = chat.messages[1:]
        others_prompt = renderer.render(others[: index - 1], generate=True)
        if renderer.render(others, generate=False).startswith(others_prompt):
            return (
                f"{problem}: it then writes the system message elsewhere, or not at all; drop "
                "the system message from the row, or put it into the user's"
            )
    return (
        f"{problem}, so question and answer cannot be separated: give each answer a row of its "
        "own, which ends with it, or use another format (--chat)"
    )
