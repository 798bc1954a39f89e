"""What is kept from turn to turn: what the state has read, and the tokens that stand for what was said."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from minigen.backends.base import Array
from minigen.chat.conversation import Conversation, Message
from minigen.errors import ChatError
from minigen.generation.shared_text import OnRead, SharedText
from minigen.tokenizer import Tokenizer

log = logging.getLogger("minigen")


class KeptReader:
    """A Reader of one text after another, which does not read again what its state has read.

    The state is the shared text itself, so that it knows what was read. `on_read` is that of
    `SharedText.seek`.
    """

    ahead = False  # the text is kept as ids

    def __init__(self, shared: SharedText, on_read: OnRead = None) -> None:
        self.shared, self.runner, self.on_read = shared, shared.runner, on_read

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> tuple[Array, SharedText]:
        (prompt,) = prompts
        self.shared.reserve(capacity)
        if (
            not self.shared.state.goes_back_anywhere
        ):  # it goes back to copies alone, so one is made here
            self.shared.seek(prompt[:-1], on_read=self.on_read)
            self.shared.mark()
        logits = self.shared.seek(prompt, [len(prompt) - 1], self.on_read)
        assert logits is not None
        return logits[None], self.shared

    def read(self, ids: Any, state: SharedText, at: Sequence[int] = (-1,)) -> Array:
        (tokens,) = ids
        return state.push([int(token) for token in tokens], at)[None]


def without_half(tokenizer: Tokenizer, prompt: Sequence[int], ids: Sequence[int], text: str) -> str:
    """`text` without the U+FFFD for a character that was cut in the middle, which /continue completes."""
    decoder = tokenizer.stream(prompt)
    whole = "".join(map(decoder.push, ids))
    rest = decoder.finish()
    return whole if rest.startswith("\ufffd") and text == whole + rest else text


def kept_ids(
    tokenizer: Tokenizer, prompt: Sequence[int], ids: Sequence[int], text: str
) -> list[int] | None:
    """The tokens for `text`, the beginning of what `ids` say after `prompt`: as they are, as far as they go.

    A stop string may begin within a token; what stands before it there is encoded anew. None where that gives another
    text.
    """

    def said(ids: Sequence[int]) -> str:
        decoder = tokenizer.stream(prompt)
        return "".join(map(decoder.push, ids)) + decoder.finish()

    count = len(ids)
    while not text.startswith(said(ids[:count])):
        count -= 1
    kept = list(ids[:count])
    rest = text[len(said(kept)) :]
    if rest:
        kept += tokenizer.encode(rest, bos=False)
    return kept if not rest or said(kept) == text else None


def check_vocabulary(conversation: Conversation, size: int) -> None:
    """Raises ChatError for tokens that a model with so many does not have."""
    for number, message in enumerate(conversation.spoken, 1):
        for token in message.ids or ():
            if not 0 <= token < size:
                raise ChatError(
                    f"message {number} has the token {token}, and the model's go from 0 to {size - 1}"
                )


def fitted(conversation: Conversation, tokenizer: Tokenizer, size: int) -> Conversation:
    """A conversation that may come from a file, so that the model is given what a person reads in it.

    An answer whose tokens say something else, since its text was edited, keeps its text alone, with a warning. Raises
    ChatError for tokens that a model with `size` of them does not have.
    """
    check_vocabulary(conversation, size)
    spoken, edited = [], []
    for number, message in enumerate(conversation.spoken, 1):
        true = message.ids is None or says(tokenizer, message)
        spoken.append(message if true else replace(message, ids=None, runs=()))
        edited += [] if true else [str(number)]
    if edited:
        log.warning(
            "the model is given the text of message %s, whose tokens say something else",
            ", ".join(edited),
        )
    return Conversation(spoken, conversation.system)


def says(tokenizer: Tokenizer, message: Message) -> bool:
    """Whether the tokens of an answer are its text.

    Decoded alone they may lose spaces at the beginning, and where bytes are no character, how many U+FFFD stand for
    them depends on where the answer was continued.
    """
    decoder = tokenizer.stream()
    said = "".join(map(decoder.push, message.ids or ())) + decoder.finish()
    found, expected = (
        re.sub("\ufffd+", "\ufffd", text.lstrip(" ")) for text in (said, message.content)
    )
    return found == expected
