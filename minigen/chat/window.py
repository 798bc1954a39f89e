"""What a model sees of a long conversation: all of it or nothing, the newest turns, or sinks and the newest tokens."""

from __future__ import annotations

from dataclasses import dataclass

from minigen.chat.conversation import Conversation
from minigen.chat.format import ChatFormat
from minigen.errors import ContextError, UsageError

POLICIES = {
    "stop": "nothing is left out: a message that does not fit is refused",
    "roll": "the oldest turns are left out, the system prompt stays",
    "sinks": "the first tokens and the newest ones are seen (attention sinks), whatever turn they are of",
}
SINKS = 4  # first tokens that stay visible, as in Xiao et al. 2023
ANSWER = 512  # new tokens where the user names no number; in a small window a quarter of it
FULL = 0.8  # share of the window from which on the user is warned


@dataclass(frozen=True)
class Window:
    """`size` tokens with the answer, or None where there is no bound (a recurrent model)."""

    size: int | None
    policy: str = "stop"

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise UsageError(
                f"overflow is {self.policy!r}: it must be one of {', '.join(POLICIES)}"
            )

    @property
    def bound(self) -> int | None:
        """The tokens that the model may be given in one text."""
        return None if self.policy == "sinks" else self.size

    def answer(self, wanted: int | None) -> int:
        """New tokens at most in an answer, where there is room for them."""
        return wanted or (ANSWER if self.size is None else max(1, min(ANSWER, self.size // 4)))

    def fit(
        self,
        chat_format: ChatFormat,
        talk: Conversation,
        last: int,
        wanted: int,
        going_on: bool = False,
    ) -> tuple[list[int], int]:
        """The tokens to read, and the first spoken message among them.

        They leave room for an answer of `wanted` tokens. The window began with `talk.first` until
        now, and `last` is the message to be answered; `going_on` as `ChatFormat.ids` takes it. When
        turns are left out, more go than must, to a window three quarters full with the answer,
        since the rest is read again each time. Raises ContextError where the message does not fit.
        """
        first = talk.first
        ids = chat_format.ids(talk, first, going_on=going_on)
        if self.bound is None:
            return ids, first
        if self.policy == "roll" and len(ids) + min(wanted, self.bound // 2) > self.bound:
            # The tokens get fewer with every turn that is left out, so the first that fits is found by halving.
            most = self.bound * 3 // 4 - wanted
            starts = range(first, last + 1, 2)
            low, high = 0, len(starts) - 1
            while low < high:
                middle = (low + high) // 2
                if len(chat_format.ids(talk, starts[middle], going_on=going_on)) <= most:
                    high = middle
                else:
                    low = middle + 1
            first = starts[low]
            ids = chat_format.ids(talk, first, going_on=going_on)
        if len(ids) >= self.bound:
            alone = len(chat_format.ids(talk, last, going_on=going_on)) >= self.bound
            whose = "this turn alone" if alone else "the conversation up to here"
            way = (
                "shorten it"
                if alone
                else "shorten it, /undo, /clear, or choose --overflow roll or sinks"
            )
            raise ContextError(
                f"{whose} has {len(ids)} tokens, and the window is {self.bound}: {way}"
            )
        return ids, first

    def warning(self, used: int, wanted: int) -> tuple[str, str] | None:
        """What to say before anything is left out, where `used` tokens are in the window: (kind, text), or None."""
        if self.size is None or (used < FULL * self.size and used + wanted <= self.size):
            return None
        newest = self.size - SINKS
        if self.policy == "sinks" and used > self.size:
            seen = f"of {used} tokens the model sees the first {SINKS} and the newest {newest}"
            return "past", f"the window is {self.size} tokens: {seen}"
        share = f"{used} of the window's {self.size} tokens are used"
        if self.policy == "roll":
            return (
                "roll",
                f"{share}: the oldest turns will be left out of what the model sees (the session keeps them)",
            )
        if self.policy == "sinks":
            return (
                "sinks",
                f"{share}: past them the model sees the first {SINKS} tokens and the newest {newest}",
            )
        return (
            "stop",
            f"{share}: a message that does not fit will be refused (/set overflow roll or sinks goes on)",
        )
