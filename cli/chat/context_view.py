"""What /context shows: the messages in the window, and the tokens that each takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from minigen.errors import ChatError

from ..display.terminal import harmless
from .views import table

if TYPE_CHECKING:
    from minigen.chat.conversation import Conversation
    from minigen.chat.engine import Chat

NEWEST = 40  # messages that are shown one by one
BAR = 24  # cells of a bar that fills the window
EXCERPT = 60  # characters of a message


class Share(NamedTuple):
    """A row: `tokens` is None for what takes none, or if they cannot be counted."""

    name: str
    text: str
    tokens: int | None


def context_view(chat: Chat) -> str:
    """One row per message: its tokens, and their share of the window as a bar."""
    shares, used = shares_of(chat)
    size = chat.window.size
    whole = max(size or 0, used, 1)
    rows = []
    for share in shares:
        tokens = "-" if share.tokens is None else str(share.tokens)
        excerpt = harmless(" ".join(share.text.split())[:EXCERPT])
        rows.append([share.name, tokens, bar(share.tokens or 0, whole), excerpt])
    head = ["message", "tokens", "share", "text"]
    return table(head, rows, ["message", "share", "text"]) + f"{usage(used, size)}\n"


def shares_of(chat: Chat) -> tuple[list[Share], int]:
    """The rows, and the tokens of all of them.

    A message's tokens are those of the conversation up to it, less those of the one before.
    """
    from minigen.chat.conversation import Conversation

    conversation = chat.conversation
    messages, system, first = conversation.spoken, conversation.system, conversation.first
    shares = []
    before = 0
    if system:
        before = count(chat, Conversation([], system), first) or 0
        shares.append(Share("system", system, before))
    if first:
        shares.append(Share(f"{first} older", "left out", None))
    begin = max(first, (len(messages) - NEWEST) // 2 * 2)
    if begin > first:
        total = count(chat, Conversation(messages[:begin], system), first) or before
        shares.append(Share(f"{begin - first} more", "", total - before))
        before = total
    for end in range(begin + 1, len(messages) + 1):
        message = messages[end - 1]
        tokens = count(chat, Conversation(messages[:end], system), first)
        if tokens is None:
            shares.append(Share(message.role, message.content, None))
        else:
            shares.append(Share(message.role, message.content, tokens - before))
            before = tokens
    return shares, before


def count(chat: Chat, conversation: Conversation, first: int) -> int | None:
    """The tokens of a part of the conversation; None if the template does not take that part."""
    try:
        return len(chat.format.ids(conversation, first, generate=False))
    except ChatError:
        return None


def bar(tokens: int, whole: int) -> str:
    """A bar for a share of the window; a share that rounds to nothing is still visible."""
    cells = round(BAR * tokens / whole)
    if cells == 0 and tokens:
        return "▏"
    return "█" * cells


def usage(used: int, size: int | None) -> str:
    """How full the window is."""
    from minigen.chat.window import SINKS

    if size is None:
        return f"{used} tokens, no limit"
    if used > size:  # attention sinks
        newest = size - SINKS
        return f"{used} tokens, of which the model sees the first {SINKS} and the newest {newest}"
    return f"{used} of {size} tokens, {size - used} free"
