"""Conversations as tokens, of which only the assistant's are trained on."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from minigen.errors import MinigenError
from minigen.tokenizer import Tokenizer
from minigen.training.data.answers import Answer, ChatRenderer, find_answers, left_out
from minigen.training.data.documents import Chat
from minigen.training.data.sources import DataError

Weights = npt.NDArray[np.uint8]


class ChatEncoder:
    """Encodes conversations, and remembers what is to be said about them: a text, and the rows that it is about."""

    def __init__(self, renderer: ChatRenderer, tokenizer: Tokenizer) -> None:
        self.renderer, self.tokenizer = renderer, tokenizer
        self.control = [name for name in tokenizer.special_tokens if name]
        self.eos = next(
            (name for name, i in tokenizer.special_tokens.items() if i == tokenizer.eos_id), ""
        )
        self.notes: dict[str, list[str]] = {}

    def encode(self, chat: Chat) -> tuple[list[int], Weights, int]:
        """As `encode_chat`."""
        for name in self.control:
            if any(name in message["content"] for message in chat.messages):
                raise DataError(
                    f"{chat.where}: a message holds the control token {name!r} as text: leave the row out"
                )
        try:
            whole = self.renderer.render(chat.messages, generate=False)
            answers = find_answers(chat, self.renderer, whole, self.control, self.eos)
            ids = self.tokenizer.encode(whole, bos=False, special=True)
            weights, places = np.zeros(len(ids), np.uint8), Places(self.tokenizer, whole, ids)
            for answer in answers:
                begin, end = self.tokens_of(answer, whole, places, chat.where)
                weights[begin:end] = 1
        except DataError:
            raise
        except MinigenError as error:
            raise DataError(f"{chat.where}: {error}") from error
        if self.needs_end(ids):
            ids.append(self.tokenizer.eos_id or 0)
            weights = np.append(weights, np.uint8(answers[-1].last))
        self.note(chat, whole, answers)
        if places.tokens is not None and answers[-1].asked:
            read = self.tokenizer.encode(answers[-1].before, bos=False, special=True)
            if ids[: len(read)] != read:
                self.say(
                    chat, "a chat reads the text before an answer as other tokens than are learned"
                )
        count = sum(len(m["content"].encode()) for m in chat.messages if m["role"] == "assistant")
        return ids, weights, count

    def tokens_of(self, answer: Answer, whole: str, places: Places, where: str) -> tuple[int, int]:
        """Its tokens among those of the conversation, to which no other text belongs."""
        begin, end = places.find(answer.begin), places.find(answer.end)
        if begin is None:
            raise DataError(
                f"{where}: the chat format lets an answer begin inside a token, after {answer.before[-10:]!r}: let a "
                "control token or a line break stand there, and let no answer begin with white space"
            )
        if end is None:
            raise DataError(
                f"{where}: the chat format lets an answer end inside a token, after "
                f"{whole[max(answer.end - 10, 0) : answer.end]!r}: use a format that ends it with a control token "
                "(--chat)"
            )
        return begin, end

    def needs_end(self, ids: Sequence[int]) -> bool:
        """Whether no end token ends the conversation, white space after one not counted."""
        eos = self.tokenizer.eos_id
        if eos is None or eos not in ids:
            return eos is not None
        after = list(ids[len(ids) - list(reversed(ids)).index(eos) :])
        return bool(self.tokenizer.decode(after, skip_special=False).strip())

    def note(self, chat: Chat, whole: str, answers: Sequence[Answer]) -> None:
        with contextlib.suppress(MinigenError):  # a template may refuse other words than these
            for role in left_out(chat, self.renderer, whole):
                self.say(chat, f"the chat template leaves out or changes the {role} message")
        if not all(answer.ended or answer.last for answer in answers):
            self.say(chat, "no control token ends an answer, so where one ends is hard to learn")
        if not all(answer.asked for answer in answers):
            self.say(
                chat,
                "the chat template asks for an answer with other white space than it writes before one",
            )
        if chat.unread:
            self.say(chat, f"not read of the messages: {', '.join(chat.unread)}")

    def say(self, chat: Chat, what: str) -> None:
        self.notes.setdefault(what, []).append(chat.where)


class Places:
    """Where among the tokens of a text a place of it lies."""

    def __init__(self, tokenizer: Tokenizer, text: str, ids: Sequence[int]) -> None:
        self.tokenizer, self.text, self.ids = tokenizer, text, list(ids)
        parts = [tokenizer.token_bytes(i) for i in ids]
        ends = [0, *accumulate(map(len, parts))]
        whole = b"".join(parts) == text.encode()
        self.tokens = {end: count for count, end in enumerate(ends)} if whole else None

    def find(self, place: int) -> int | None:
        """How many tokens stand before it; None where it lies inside one."""
        if place == len(self.text):
            return len(self.ids)
        if self.tokens is not None:
            return self.tokens.get(len(self.text[:place].encode()))
        # The tokenizer changes the text before it cuts it: only by its own tokens can it be told.
        head = self.tokenizer.encode(self.text[:place], bos=False, special=True)
        return len(head) if self.ids[: len(head)] == head else None


def encode_chat(
    chat: Chat, renderer: ChatRenderer, tokenizer: Tokenizer
) -> tuple[list[int], Weights, int]:
    """The ids of a conversation, their weights (ids,), and how many bytes of text those with the weight 1 are for.

    The ids are those of the format's own text. The weight is 1 on what the model has to write: all that follows what a
    chat reads before an answer, up to the first control token after it, or all that the format writes after it where
    there is none. Marks for training in a template ({% generation %}) change nothing in this. The end token that
    follows a document is trained on only where the format itself writes nothing after an answer, and not written where
    the format ends with it. Its start tokens are the format's affair, as they are in a chat.

    Raises DataError, with FILE:LINE, for a format that rewrites what came before or begins or ends an answer inside a
    token.
    """
    return ChatEncoder(renderer, tokenizer).encode(chat)
