"""What a model sees of a conversation that is longer than its window."""

from __future__ import annotations

from dataclasses import dataclass

from minigen.chat.conversation import Conversation
from minigen.chat.format import ChatFormat
from minigen.errors import ContextError, UsageError

POLICIES = {
    "stop": "nothing is left out: a message that does not fit is refused",
    "roll": "the oldest turns are left out, the system prompt stays",
    "sinks": "the model sees the first tokens (attention sinks) and the newest ones of any turn",
}
SINKS = 4  # first tokens that stay visible, as in Xiao et al. 2023
DEFAULT_ANSWER = 512  # new tokens by default; in a small window a quarter of it
FULL = 0.8  # share of the window at which the user is warned


@dataclass(frozen=True)
class Window:
    """A window of `size` tokens, answer included; None: no limit (a recurrent model)."""

    size: int | None
    policy: str = "stop"

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise UsageError(
                f"overflow is {self.policy!r}: it must be one of {', '.join(POLICIES)}"
            )

    @property
    def bound(self) -> int | None:
        """The most tokens that the model may be given; None: no limit."""
        return None if self.policy == "sinks" else self.size

    def answer(self, max_tokens: int | None) -> int:
        """The most new tokens of an answer: `max_tokens`, or else the default for this window."""
        if max_tokens:
            return max_tokens
        if self.size is None:
            return DEFAULT_ANSWER
        return max(1, min(DEFAULT_ANSWER, self.size // 4))

    def fit(
        self,
        chat_format: ChatFormat,
        conversation: Conversation,
        last: int,
        new_tokens: int,
        going_on: bool = False,
    ) -> tuple[list[int], int]:
        """The tokens to read so that an answer of `new_tokens` has room, and their first message.

        Args:
            chat_format: how the conversation becomes tokens.
            conversation: its `first` is the first message in the window until now.
            last: the message to be answered.
            new_tokens: the most new tokens of the answer.
            going_on: as in `ChatFormat.ids`.

        To leave out turns moves the beginning of the window, so that all of it is read again. So
        that this is rare, the window is then made three quarters full, answer included.

        Raises ContextError if the message does not fit.
        """
        first = conversation.first
        tokens = chat_format.ids(conversation, first, going_on=going_on)
        if self.bound is None:
            return tokens, first
        if self.policy == "roll" and len(tokens) + min(new_tokens, self.bound // 2) > self.bound:
            # Later windows are shorter: a binary search among the messages of the user.
            most = self.bound * 3 // 4 - new_tokens
            starts = range(first, last + 1, 2)
            low, high = 0, len(starts) - 1
            while low < high:
                middle = (low + high) // 2
                if len(chat_format.ids(conversation, starts[middle], going_on=going_on)) <= most:
                    high = middle
                else:
                    low = middle + 1
            first = starts[low]
            tokens = chat_format.ids(conversation, first, going_on=going_on)
        if len(tokens) >= self.bound:
            if len(chat_format.ids(conversation, last, going_on=going_on)) >= self.bound:
                what, advice = "this turn alone", "shorten it"
            else:
                what = "the conversation up to here"
                advice = "shorten it, /undo, /clear, or choose --overflow roll or sinks"
            raise ContextError(
                f"{what} has {len(tokens)} tokens, and the window is {self.bound}: {advice}"
            )
        return tokens, first

    def warning(self, used: int, new_tokens: int) -> tuple[str, str] | None:
        """The warning before anything is left out, as (kind, text); None: not yet.

        `used` are the tokens in the window, `new_tokens` the most of the next answer.
        """
        if self.size is None or (used < FULL * self.size and used + new_tokens <= self.size):
            return None
        newest = self.size - SINKS
        if self.policy == "sinks" and used > self.size:
            return "past", (
                f"the window is {self.size} tokens: of {used} tokens the model sees "
                f"the first {SINKS} and the newest {newest}"
            )
        share = f"{used} of the window's {self.size} tokens are used"
        if self.policy == "roll":
            return "roll", (
                f"{share}: the oldest turns will be left out of what the model sees "
                "(the session keeps them)"
            )
        if self.policy == "sinks":
            return "sinks", (
                f"{share}: beyond that the model sees the first {SINKS} tokens "
                f"and the newest {newest}"
            )
        return "stop", (
            f"{share}: a message that does not fit will be refused "
            "(to go on, /set overflow roll or sinks)"
        )
