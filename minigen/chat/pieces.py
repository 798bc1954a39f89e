"""Finds messages again in the text that a chat template makes of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from minigen.chat.conversation import Message
from minigen.chat.marks import RIGHT, unused_mark
from minigen.errors import ChatError


@dataclass(frozen=True)
class Piece:
    """A part of a rendered conversation: text, or the content of message `number`."""

    text: str
    number: int | None = None
    ids: tuple[int, ...] | None = None  # the message's own tokens, if it has them


def separated(
    messages: Sequence[Message],
    numbers: Sequence[int],
    true_text: str,
    render: Callable[[Sequence[Message]], str],
    must_stay_text: Callable[[Message], bool],
) -> list[Piece] | None:
    """The pieces of a rendered conversation, with some of its messages as pieces of their own.

    The conversation is rendered again with marks in the place of those messages. The white space
    around a message stays outside of its mark, as templates often strip it.

    Args:
        messages: the conversation, as the template is given it.
        numbers: the messages to separate.
        true_text: the rendered conversation.
        render: renders a conversation; may raise ChatError.
        must_stay_text: whether a message is separated even if its white space is stripped.

    Returns None if the template changes the messages in another way.
    """
    if not numbers:
        return [Piece(true_text)]
    left, right = marks_for(messages)
    marked = list(messages)
    for i in numbers:
        lead, _, trail = around(messages[i].content)
        marked[i] = replace(messages[i], content=f"{lead}{left}{i}{right}{trail}")
    try:
        parts = re.split(f"{left}([0-9]+){right}", render(marked))
    except ChatError:
        return None
    pieces: list[Piece] = []
    text = parts[0]
    for number_text, after in zip(parts[1::2], parts[2::2], strict=True):
        number = int(number_text)
        if number not in numbers:
            return None  # a mark that the template wrote itself
        message = messages[number]
        lead, core, trail = around(message.content)
        unstripped = text.endswith(lead) and after.startswith(trail)
        if message.ids is not None and unstripped:
            pieces.append(Piece(text[: len(text) - len(lead)]))
            pieces.append(Piece(message.content, number, message.ids))
            text = after[len(trail) :]
        elif must_stay_text(message):
            pieces += [Piece(text), Piece(core, number)]
            text = after
        else:  # the template stripped white space, which is part of the message's tokens
            text += core + after
    pieces.append(Piece(text))
    if "".join(piece.text for piece in pieces) != true_text:
        return None
    return [piece for piece in pieces if piece.text or piece.number is not None]


def marks_for(messages: Sequence[Message]) -> tuple[str, str]:
    """What a message is set apart by, on its left and on its right."""
    return unused_mark(message.content for message in messages), RIGHT


def around(text: str) -> tuple[str, str, str]:
    """(white space before, the rest, white space after)."""
    core = text.strip()
    if not core:
        return "", text, ""
    start = text.index(core)
    return text[:start], core, text[start + len(core) :]
