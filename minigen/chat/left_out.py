"""What the chat template does not show to the model, said once."""

from __future__ import annotations

import logging

from minigen.chat.conversation import Conversation
from minigen.chat.format import ChatFormat
from minigen.errors import first_of

SHOWN = 3  # messages that a warning names

log = logging.getLogger("minigen")


class LeftOut:
    """Warns where a template leaves the system prompt or messages out: of each kind once, not at each turn."""

    def __init__(self, chat_format: ChatFormat) -> None:
        self.format = chat_format
        self.told: set[str] = set()

    def tell(self, talk: Conversation, first: int) -> None:
        """`first` is the first spoken message that the template is given."""
        missing = self.format.left_out(talk, first)
        spoken = [
            f"{number + 1} (the {talk.spoken[number].role}'s)" for number in missing if number >= 0
        ]
        if -1 in missing and "system" not in self.told:
            self.told.add("system")
            log.warning("the chat template leaves the system prompt out: the model does not see it")
        if spoken and "messages" not in self.told:
            self.told.add("messages")
            names = first_of(spoken, SHOWN)
            log.warning(
                "the chat template leaves messages out, which the model does not see: %s", names
            )
