"""Guesses of how a text goes on, for speculative decoding: from the text itself, or from a smaller model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from minigen.generation.choosing import pick
from minigen.generation.options import Options
from minigen.generation.rows import Row
from minigen.generation.shared_text import SharedText

LONGEST = 3  # tokens that prompt lookup compares, as in Saxena 2023


class Drafter(Protocol):
    """Guesses how a text goes on."""

    def begin(self, row: Row) -> None:
        """The row whose prompt is about to be read, and which only grows from here on."""
        ...

    def draft(self, room: int) -> Sequence[int]:
        """At most `room` ids, >= 1, that may follow the row's tokens; none where it is not worth the while."""
        ...

    def learn(self, guessed: int, kept: int) -> None:
        """Of the last ids, `guessed` >= 1 were read and the first `kept` of them were right."""
        ...


class Pace:
    """How many tokens to guess, at most `most`, so that guesses that fail cost little.

    The number doubles after guesses that were all kept, and falls to what was kept after others. A pass with guesses
    has a price and what is kept pays it; who owes waits, and each time is forgiven a little.
    """

    # In saved passes: what guesses cost, together and each; what is forgiven; what may be saved up for bad times.
    TOGETHER, EACH, FORGIVEN, SAVED = 0.4, 0.12, 1 / 32, 8.0

    def __init__(self, most: int, savings: float = 1.0) -> None:
        self.most, self.number, self.savings = most, min(most, 2), savings

    def next(self) -> int:
        if self.savings >= 0:
            return self.number
        self.savings += self.FORGIVEN
        return 0

    def learn(self, guessed: int, kept: int) -> None:
        self.savings = min(self.savings + kept - self.TOGETHER - self.EACH * guessed, self.SAVED)
        self.number = min(2 * guessed, self.most) if kept == guessed else max(kept, 1)


class PromptLookup:
    """What followed the last three tokens where they stood before, the last time; else the last two, or the last one.

    Each of the three has a pace of its own, and the longer it is the more it may fail at first: a single token stands
    before often enough in a text that repeats nothing.
    """

    def __init__(self, most: int) -> None:
        self.paces = {n: Pace(most, savings=(n - 1) / 2) for n in range(LONGEST, 0, -1)}
        self.after: dict[tuple[int, ...], int] = {}  # n-gram -> the index of what followed it last
        self.known = 1  # how many tokens are in `after`

    def begin(self, row: Row) -> None:
        self.tokens = row.tokens
        self.note()

    def note(self) -> None:
        """Takes up what is new of the text: all n-grams that something follows."""
        for i in range(self.known, len(self.tokens)):
            for n in range(1, min(LONGEST, i) + 1):
                self.after[tuple(self.tokens[i - n : i])] = i
        self.known = len(self.tokens)

    def draft(self, room: int) -> list[int]:
        self.note()
        tokens = self.tokens
        for n, pace in self.paces.items():
            at = self.after.get(tuple(tokens[-n:]))
            if at is not None:
                self.pace, period = pace, len(tokens) - at
                # What runs into the end of the text goes on repeating.
                return [tokens[at + i % period] for i in range(min(pace.next(), room))]
        return []

    def learn(self, guessed: int, kept: int) -> None:
        self.pace.learn(guessed, kept)


class DraftModel:
    """What a smaller model says, chosen by the settings of the run and with the same uniform numbers.

    The two then draw the same token about as often as their distributions overlap, which is what rejection sampling
    accepts too; a greedy guess is right no more often than the best token is drawn, and an independent draw still less.
    `shared` is the model's text, which may stay from run to run: what it has read is not read again.
    """

    def __init__(self, shared: SharedText, options: Options) -> None:
        self.shared, self.options = shared, replace(options, logprobs=None)
        self.context, self.pace = shared.runner.architecture.context, Pace(options.draft_tokens)

    def begin(self, row: Row) -> None:
        self.row = row
        if self.context is None or len(row.prompt) <= self.context:
            self.shared.seek(row.prompt)

    def draft(self, room: int) -> list[int]:
        known, shared = len(self.row.tokens), self.shared
        if self.context is not None:
            room = min(room, self.context - known + 1)  # the last guess is not read
        count = min(self.pace.next(), room)
        if count < 1:
            return []
        row = Row(self.row.prompt, self.row.sequence, ids=list(self.row.ids))
        logits = shared.seek(row.tokens, [known - 1])
        while True:
            assert logits is not None
            ((_, token),) = pick(shared.runner.ops, logits[None], [row], self.options)
            row.add(token)
            if len(row.tokens) == known + count:
                return row.tokens[known:]
            logits = shared.push([token])

    def learn(self, guessed: int, kept: int) -> None:
        self.pace.learn(guessed, kept)
