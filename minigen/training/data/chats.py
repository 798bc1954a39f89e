"""Conversations as tokens, of which only the assistant's are trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from minigen.errors import MinigenError
from minigen.tokenizer import Tokenizer
from minigen.training.data.documents import Chat
from minigen.training.data.sources import DataError

Span = tuple[int, int]


class ChatRenderer(Protocol):
    """A chat format, such as a model's chat template."""

    @property
    def source(self) -> str:
        """What tells it from another format, such as the text of the template."""

    @property
    def special(self) -> Mapping[str, str]:
        """The control tokens that it writes, by their names in the template."""

    def render(self, messages: Sequence[Mapping[str, Any]], *, generate: bool) -> str:
        """The text of a conversation; with `generate`, up to where the next answer begins."""


def encode_chat(
    chat: Chat, renderer: ChatRenderer, tokenizer: Tokenizer
) -> tuple[list[int], npt.NDArray[np.uint8], int]:
    """The ids of a conversation, their weights (ids,), and how many bytes of text those with the weight 1 are for.

    The weight is 1 on what the assistant says and on what ends it: up to the first control token after it, or all
    that the format writes after it where there is none. The end token that follows a document is trained on only where
    the format itself writes nothing after an answer. Its start tokens are the format's affair, as they are in a chat.

    Raises DataError, with FILE:LINE, for a format that rewrites what came before, or ends a turn inside a token.
    """
    for name in tokenizer.special_tokens:
        if any(name in message["content"] for message in chat.messages):
            raise DataError(f"{chat.where}: a message holds the control token {name!r} as text: leave the row out")
    try:
        whole = renderer.render(chat.messages, generate=False)
        spans, open_end = answer_spans(chat, renderer, tokenizer, whole)
        ids = tokenizer.encode(whole, bos=False, special=True)
        bounds = token_bounds(tokenizer, whole, ids, spans)
    except DataError:
        raise
    except MinigenError as error:
        raise DataError(f"{chat.where}: {error}") from error
    weights = np.zeros(len(ids), np.uint8)
    for (start, end), (begin, _) in zip(bounds, spans, strict=True):
        if start is None:
            raise DataError(
                f"{chat.where}: the chat format lets an answer begin inside a token, after "
                f"{whole[max(begin - 10, 0) : begin]!r}: let a control token or a line break stand there"
            )
        weights[start:end] = 1
    if tokenizer.eos_id is not None and ids[-1:] != [tokenizer.eos_id]:
        ids.append(tokenizer.eos_id)
        weights = np.append(weights, np.uint8(open_end))
    count = sum(len(m["content"].encode()) for m in chat.messages if m["role"] == "assistant")
    return ids, weights, count


def answer_spans(chat: Chat, renderer: ChatRenderer, tokenizer: Tokenizer, whole: str) -> tuple[list[Span], bool]:
    """Where the answers stand in the text, each with what ends it; and whether nothing ends the last of all."""
    spans: list[Span] = []
    open_end = False
    for place, message in enumerate(chat.messages):
        if message["role"] != "assistant":
            open_end = False
            continue
        before = renderer.render(chat.messages[:place], generate=True) if place else None
        after = renderer.render(chat.messages[: place + 1], generate=False)
        if before is None:
            raise DataError(f"{chat.where}: the assistant speaks first: begin with a system or user message")
        if not (whole.startswith(after) and after.startswith(before)):
            raise DataError(
                f"{chat.where}: the chat format changes what stands before message {place + 1} when that is added, so "
                "what was said cannot be told from what answers it: use a format that only adds to the text"
            )
        answer = after[len(before) :]
        said = message["content"] if message["content"] in answer else message["content"].strip()
        found = answer.find(said)
        if found < 0:
            raise DataError(f"{chat.where}: the chat format changes the text of message {place + 1}: use another")
        tail = answer[found + len(said) :]
        ends = [tail.index(name) + len(name) for name in tokenizer.special_tokens if name in tail]
        spans.append((len(before), len(after) - len(tail) + min(ends, default=len(tail))))
        open_end = not tail
    return spans, open_end


def token_bounds(
    tokenizer: Tokenizer, text: str, ids: Sequence[int], spans: Sequence[Span]
) -> list[tuple[int | None, int]]:
    """The spans of a text as those of its tokens; None for a beginning that lies inside a token.

    A token across the end of a span counts for what follows it.
    """
    ends = [0, *accumulate(len(tokenizer.token_bytes(i)) for i in ids)]
    if b"".join(map(tokenizer.token_bytes, ids)) == text.encode("utf-8"):
        at = {end: place for place, end in enumerate(ends)}

        def tokens(place: int) -> tuple[int, bool]:
            count = len(text[:place].encode("utf-8"))
            found = at.get(count)
            return (int(np.searchsorted(ends, count, "right")) - 1, False) if found is None else (found, True)
    else:  # a tokenizer that changes the text before it cuts it

        def tokens(place: int) -> tuple[int, bool]:
            head = tokenizer.encode(text[:place], bos=False, special=True)
            same = next((i for i, (a, b) in enumerate(zip(head, ids, strict=False)) if a != b), len(head))
            return min(same, len(ids)), same == len(head)

    found = []
    for begin, end in spans:
        start, exact = tokens(begin)
        found.append((start if exact else None, tokens(end)[0]))
    return found
