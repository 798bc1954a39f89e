"""Warnings about messages that the chat template does not show to the model."""

from __future__ import annotations

import logging

from minigen.chat.conversation import Conversation
from minigen.chat.format import SYSTEM, ChatFormat
from minigen.errors import first_of

MOST_NAMED = 3  # messages in a warning

log = logging.getLogger("minigen")


class LeftOut:
    """Warns once if a template omits the system prompt, and once if it omits messages."""

    def __init__(self, chat_format: ChatFormat) -> None:
        self.format = chat_format
        self.warned: set[str] = set()

    def tell(self, conversation: Conversation, first: int) -> None:
        """`first` is the first spoken message that the template is given."""
        missing = self.format.left_out(conversation, first)
        if SYSTEM in missing and "system" not in self.warned:
            self.warned.add("system")
            log.warning("the chat template omits the system prompt: the model does not see it")
        messages: list[str] = []
        for number in missing:
            if number != SYSTEM:
                messages.append(f"{number + 1} (the {conversation.spoken[number].role}'s)")
        if messages and "messages" not in self.warned:
            self.warned.add("messages")
            names = first_of(messages, MOST_NAMED)
            log.warning("the chat template omits messages, which the model does not see: %s", names)
