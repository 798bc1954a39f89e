"""A conversation, and how each answer was generated. Independent of models, files and terminals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from minigen.errors import ChatError, UsageError


@dataclass(frozen=True)
class Run:
    """One run of the model on an answer; a continued answer has several."""

    start: int  # tokens of the answer before this run
    tokens: int  # generated tokens, including a stop token
    finish: str  # "stop", "length" or "interrupted"
    first: int  # the first spoken message in the window, see Conversation.first
    settings: Mapping[str, Any]  # for Options.of, with seed and max_tokens
    system: str | None = None  # the system prompt at the time
    sinks: int | None = None  # size of the window, if it was of attention sinks and newest tokens


@dataclass(frozen=True)
class Message:
    """A message of the user or the assistant.

    `ids` are the tokens of a generated answer without its stop token; None for any other text. They
    decode to `content` exactly, and later turns give them to the model as they are: a text can have
    several tokenizations, and the tokenizer's is not always the one that the model generated.
    """

    role: str  # "user" or "assistant"; the system prompt is not a message
    content: str
    ids: tuple[int, ...] | None = None
    runs: tuple[Run, ...] = ()


class Conversation:
    """A system prompt and alternating messages; a last message may have no answer yet."""

    def __init__(self, spoken: Sequence[Message] = (), system: str | None = None) -> None:
        self.system = system
        self.spoken = list(spoken)
        for number, message in enumerate(self.spoken):
            expected = "assistant" if number % 2 else "user"
            if message.role != expected:
                raise ChatError(
                    f"message {number + 1} is the {message.role}'s: user and assistant must "
                    "alternate"
                )

    @property
    def first(self) -> int:
        """The first message in the window of the last answer; those before it were left out."""
        for message in reversed(self.spoken[-2:]):
            if message.runs:
                return message.runs[-1].first
        return 0

    @property
    def waits(self) -> bool:
        """Whether the last message has no answer yet."""
        return len(self.spoken) % 2 == 1

    def say(self, text: str) -> None:
        """Adds the user's next message.

        Raises UsageError for an empty message, or if the one before has no answer yet.
        """
        if not text.strip():
            raise UsageError("the message is empty: write something")
        if self.waits:
            raise UsageError(
                "the last message has no answer yet: /regen generates one, /undo removes the "
                "message"
            )
        self.spoken.append(Message("user", text))

    def answer(self, message: Message) -> None:
        """Adds the assistant's answer to the last message."""
        assert self.waits
        assert message.role == "assistant"
        self.spoken.append(message)

    def last_answer(self) -> Message:
        """The last answer. Raises UsageError if there is none."""
        if not self.spoken or self.spoken[-1].role != "assistant":
            raise UsageError("there is no answer yet: write a message first")
        return self.spoken[-1]

    def take_answer(self) -> Message:
        """Removes the last answer, so that another can be generated, and returns it."""
        self.last_answer()
        return self.spoken.pop()

    def take_turn(self) -> str:
        """Removes the last message of the user, and its answer, and returns its text."""
        if not self.spoken:
            raise UsageError("the conversation is empty")
        if self.spoken[-1].role == "assistant":
            self.spoken.pop()
        return self.spoken.pop().content

    def without_ids(self) -> Conversation:
        """A copy for a model with other tokens: answers are only text, without their runs."""
        return Conversation(
            [replace(message, ids=None, runs=()) for message in self.spoken], self.system
        )

    def without_runs(self) -> Conversation:
        """A copy for another model with the same tokens: answers keep their ids, not their runs."""
        return Conversation([replace(message, runs=()) for message in self.spoken], self.system)

    def clear(self) -> None:
        """Removes all messages; the system prompt stays."""
        self.spoken.clear()

    def plain(self) -> list[dict[str, str]]:
        """Only roles and contents, as in training data. White space around answers is removed."""
        rows: list[dict[str, str]] = []
        if self.system:
            rows.append({"role": "system", "content": self.system})
        for message in self.spoken:
            content = message.content
            if message.role == "assistant":
                content = content.strip()
            rows.append({"role": message.role, "content": content})
        return rows
