"""Conversations as tokens, of which only those of the assistant are trained on."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from minigen.errors import MinigenError
from minigen.tokenizer import Tokenizer
from minigen.training.data.answers import Answer, ChatRenderer, find_answers, left_out
from minigen.training.data.documents import Chat
from minigen.training.data.sources import DataError

Weights = npt.NDArray[np.uint8]


class ChatEncoder:
    """Encodes conversations, and collects warnings about them: a text -> the rows it is about."""

    def __init__(self, renderer: ChatRenderer, tokenizer: Tokenizer) -> None:
        self.renderer = renderer
        self.tokenizer = tokenizer
        self.control = [name for name in tokenizer.special_tokens if name]
        self.eos = ""
        for name, token in tokenizer.special_tokens.items():
            if token == tokenizer.eos_id:
                self.eos = name
                break
        self.warnings: dict[str, list[str]] = {}

    def encode(self, chat: Chat) -> tuple[list[int], Weights, int]:
        """As `encode_chat`."""
        for name in self.control:
            if any(name in message["content"] for message in chat.messages):
                raise DataError(
                    f"{chat.where}: a message contains the control token {name!r} as text: "
                    "drop the row"
                )
        try:
            whole = self.renderer.render(chat.messages, generate=False)
            answers = find_answers(chat, self.renderer, whole, self.control, self.eos)
            ids = self.tokenizer.encode(whole, bos=False, special=True)
            weights = np.zeros(len(ids), np.uint8)
            positions = TokenPositions(self.tokenizer, whole, ids)
            for answer in answers:
                begin, end = self.tokens_of(answer, whole, positions, chat.where)
                weights[begin:end] = 1
        except DataError:
            raise
        except MinigenError as error:
            raise DataError(f"{chat.where}: {error}") from error
        if self.needs_end(ids):
            ids.append(self.tokenizer.eos_id or 0)
            weights = np.append(weights, np.uint8(answers[-1].last))
        self.check(chat, whole, answers)
        if positions.by_bytes is not None and answers[-1].asked:
            prompt = self.tokenizer.encode(answers[-1].before, bos=False, special=True)
            if ids[: len(prompt)] != prompt:
                self.warn(
                    chat,
                    "a chat reads the text before an answer as other tokens than are learned",
                )
        byte_count = 0
        for message in chat.messages:
            if message["role"] == "assistant":
                byte_count += len(message["content"].encode())
        return ids, weights, byte_count

    def tokens_of(
        self, answer: Answer, whole: str, positions: TokenPositions, where: str
    ) -> tuple[int, int]:
        """(begin, end) of an answer's tokens. Raises DataError if other text shares a token."""
        begin = positions.tokens_before(answer.begin)
        end = positions.tokens_before(answer.end)
        if begin is None:
            raise DataError(
                f"{where}: with this chat format an answer begins inside a token, after "
                f"{answer.before[-10:]!r}: put a control token or a line break there, "
                "and do not begin answers with white space"
            )
        if end is None:
            tail = whole[max(answer.end - 10, 0) : answer.end]
            raise DataError(
                f"{where}: with this chat format an answer ends inside a token, after {tail!r}: "
                "use a format that ends it with a control token (--chat)"
            )
        return begin, end

    def needs_end(self, ids: Sequence[int]) -> bool:
        """Whether there is no end token at the end, apart from white space after it."""
        eos = self.tokenizer.eos_id
        if eos is None:
            return False
        if eos not in ids:
            return True
        after = list(ids[len(ids) - list(reversed(ids)).index(eos) :])
        return bool(self.tokenizer.decode(after, skip_special=False).strip())

    def check(self, chat: Chat, whole: str, answers: Sequence[Answer]) -> None:
        """Warns of what is unusual about a conversation in this format."""
        with contextlib.suppress(MinigenError):  # a template may refuse the marks
            for role in left_out(chat, self.renderer, whole):
                self.warn(chat, f"the chat template omits or changes the {role} message")
        if not all(answer.ended or answer.last for answer in answers):
            self.warn(chat, "no control token ends an answer, so its end is hard to learn")
        if not all(answer.asked for answer in answers):
            self.warn(
                chat,
                "the chat template asks for an answer with other white space "
                "than it writes before one",
            )
        if chat.unread:
            self.warn(chat, f"ignored in the messages: {', '.join(chat.unread)}")

    def warn(self, chat: Chat, text: str) -> None:
        self.warnings.setdefault(text, []).append(chat.where)


class TokenPositions:
    """Finds the positions of a text among its tokens."""

    def __init__(self, tokenizer: Tokenizer, text: str, ids: Sequence[int]) -> None:
        self.tokenizer = tokenizer
        self.text = text
        self.ids = list(ids)
        self.by_bytes: dict[int, int] | None = None  # bytes -> the number of tokens for them
        parts = [tokenizer.token_bytes(i) for i in ids]
        if b"".join(parts) == text.encode():
            self.by_bytes = {0: 0}
            end = 0
            for count, part in enumerate(parts, 1):
                end += len(part)
                self.by_bytes[end] = count

    def tokens_before(self, position: int) -> int | None:
        """The number of tokens before a character; None if it is inside a token."""
        if position == len(self.text):
            return len(self.ids)
        if self.by_bytes is not None:
            return self.by_bytes.get(len(self.text[:position].encode()))
        # The tokenizer changes the text, so it is encoded up to there.
        head = self.tokenizer.encode(self.text[:position], bos=False, special=True)
        return len(head) if self.ids[: len(head)] == head else None


def encode_chat(
    chat: Chat, renderer: ChatRenderer, tokenizer: Tokenizer
) -> tuple[list[int], Weights, int]:
    """The ids of a conversation, their weights (ids,), and the bytes of the text of weight 1.

    The ids are those of the text that the format writes. The weight is 1 for what the model has to
    generate: everything after the text that a chat reads before an answer, up to the first control
    token after it, or all that the format writes after it if there is none. Marks for training in a
    template ({% generation %}) have no effect. The end token after a document is trained on only if
    the format writes nothing after an answer, and is not added if the format ends with it. Start
    tokens are up to the format, as in a chat.

    Raises DataError, with FILE:LINE, for a format that changes earlier text, or that begins or ends
    an answer inside a token.
    """
    return ChatEncoder(renderer, tokenizer).encode(chat)
