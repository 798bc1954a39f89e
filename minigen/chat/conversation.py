"""What was said, and how each answer was made. Knows no model, no file and no terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from minigen.errors import ChatError, UsageError


@dataclass(frozen=True)
class Run:
    """One run of the model on an answer; an answer that was continued has several."""

    start: int  # tokens of the answer that were there before
    tokens: int  # tokens generated, a stop token included
    finish: str  # "stop", "length" or "interrupted"
    first: int  # the first spoken message in the window, see Conversation.first
    settings: Mapping[str, Any]  # as Options.of takes them, with the seed and max_tokens
    system: str | None = None  # the system prompt, which may have changed since
    sinks: int | None = (
        None  # the rolling window, where the model saw attention sinks and the newest tokens
    )


@dataclass(frozen=True)
class Message:
    """`ids` are the tokens of an answer as the model wrote them, less a stop token; None for any other text.

    They stand for `content` exactly, and are what the model is given in later turns: a text may have several
    tokenizations, and its tokenizer's is not always the one that the model chose.
    """

    role: str  # "user" or "assistant"; the system prompt is no message of the list
    content: str
    ids: tuple[int, ...] | None = None
    runs: tuple[Run, ...] = ()


class Conversation:
    """A system prompt, and messages of user and assistant in turn; the last may be without an answer."""

    def __init__(self, spoken: Sequence[Message] = (), system: str | None = None) -> None:
        self.system = system
        self.spoken = list(spoken)
        for number, message in enumerate(self.spoken):
            expected = "assistant" if number % 2 else "user"
            if message.role != expected:
                raise ChatError(
                    f"message {number + 1} is the {message.role}'s: user and assistant must alternate"
                )

    @property
    def first(self) -> int:
        """The spoken message that the window of the last answer begins with: those before it were left out."""
        runs = [run for message in self.spoken[-2:] for run in message.runs]
        return runs[-1].first if runs else 0

    @property
    def waits(self) -> bool:
        """Whether the last message has no answer yet."""
        return len(self.spoken) % 2 == 1

    def say(self, text: str) -> None:
        """The user's next message. Raises UsageError for an empty one, and where the one before has no answer yet."""
        if not text.strip():
            raise UsageError("the message is empty: write something")
        if self.waits:
            raise UsageError(
                "the last message has no answer yet: /regen gives one, /undo takes it back"
            )
        self.spoken.append(Message("user", text))

    def answer(self, message: Message) -> None:
        """The assistant's, to the message that waits for one."""
        assert self.waits
        assert message.role == "assistant"
        self.spoken.append(message)

    def last_answer(self) -> Message:
        """Raises UsageError where there is none."""
        if not self.spoken or self.spoken[-1].role != "assistant":
            raise UsageError("there is no answer yet: say something first")
        return self.spoken[-1]

    def take_answer(self) -> Message:
        """Takes the last answer away, so that another can be given, and returns it."""
        self.last_answer()
        return self.spoken.pop()

    def take_turn(self) -> str:
        """Takes the last turn away, answer and message, and returns what the user said."""
        if not self.spoken:
            raise UsageError("nothing has been said yet")
        if self.spoken[-1].role == "assistant":
            self.spoken.pop()
        return self.spoken.pop().content

    def without_ids(self) -> Conversation:
        """The same for a model that reads other tokens: answers are text, and nothing is told of how they came."""
        return Conversation(
            [replace(message, ids=None, runs=()) for message in self.spoken], self.system
        )

    def without_runs(self) -> Conversation:
        """The same for a model that reads the same tokens: its answers came about in another way."""
        return Conversation([replace(message, runs=()) for message in self.spoken], self.system)

    def clear(self) -> None:
        """Forgets what was said; the system prompt stays."""
        self.spoken.clear()

    def plain(self) -> list[dict[str, str]]:
        """Roles and contents alone, as training data has them. White space around an answer is the model's habit."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return system + [
            {"role": m.role, "content": m.content if m.role == "user" else m.content.strip()}
            for m in self.spoken
        ]
