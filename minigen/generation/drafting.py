"""Guesses how a text continues, for speculative decoding: from the text itself or by a model."""

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
    """Guesses how a text continues."""

    def begin(self, row: Row) -> None:
        """Takes the row whose prompt is about to be read. From then on, the row only grows."""
        ...

    def draft(self, room: int) -> Sequence[int]:
        """At most `room` >= 1 ids that may follow the row's tokens; none if it does not pay."""
        ...

    def learn(self, guessed: int, kept: int) -> None:
        """Reports that `guessed` >= 1 ids were read, and that the first `kept` were right."""
        ...


class DraftLength:
    """How many tokens to guess, at most `most`, so that wrong guesses cost little.

    The number doubles if all guesses were right; otherwise it becomes the number of right ones. A
    pass with guesses costs something, and right guesses earn something. While the balance is
    negative nothing is guessed, but each time a small part of the debt is forgiven.
    """

    # The unit is a saved pass.
    COST = 0.4  # of guessing at all
    COST_PER_TOKEN = 0.12
    FORGIVEN = 1 / 32  # each time that nothing is guessed
    MOST_SAVED = 8.0

    def __init__(self, most: int, savings: float = 1.0) -> None:
        self.most, self.number, self.savings = most, min(most, 2), savings

    def next(self) -> int:
        if self.savings >= 0:
            return self.number
        self.savings += self.FORGIVEN
        return 0

    def learn(self, guessed: int, kept: int) -> None:
        savings = self.savings + kept - self.COST - self.COST_PER_TOKEN * guessed
        self.savings = min(savings, self.MOST_SAVED)
        if kept == guessed:
            self.number = min(2 * guessed, self.most)
        else:
            self.number = max(kept, 1)


class PromptLookup:
    """Guesses what followed the last three tokens where they last occurred in the text before.

    If they did not occur, the last two count, then the last one. Each of the three has a draft
    length of its own. The longer one may fail more often at first, since a single token occurs
    again often enough in a text that repeats nothing.
    """

    def __init__(self, most: int) -> None:
        self.lengths: dict[int, DraftLength] = {}  # of the n-gram -> how many tokens to guess
        for n in range(LONGEST, 0, -1):
            self.lengths[n] = DraftLength(most, savings=(n - 1) / 2)
        self.after: dict[tuple[int, ...], int] = {}  # n-gram -> index of what followed it last
        self.known = 1  # how many tokens are in `after`

    def begin(self, row: Row) -> None:
        self.tokens = row.tokens
        self.add_new_tokens()

    def add_new_tokens(self) -> None:
        """Adds the n-grams that new tokens follow."""
        for i in range(self.known, len(self.tokens)):
            for n in range(1, min(LONGEST, i) + 1):
                self.after[tuple(self.tokens[i - n : i])] = i
        self.known = len(self.tokens)

    def draft(self, room: int) -> list[int]:
        self.add_new_tokens()
        tokens = self.tokens
        for n, length in self.lengths.items():
            start = self.after.get(tuple(tokens[-n:]))
            if start is None:
                continue
            self.used = length
            # If the guesses reach the end of the text, they repeat from the start.
            period = len(tokens) - start
            count = min(length.next(), room)
            return [tokens[start + i % period] for i in range(count)]
        return []

    def learn(self, guessed: int, kept: int) -> None:
        self.used.learn(guessed, kept)


class DraftModel:
    """Guesses what a smaller model generates with the run's settings and its uniform numbers.

    With the same numbers, both models draw the same token about as often as their distributions
    overlap, which is also how often rejection sampling accepts. A greedy guess would be right only
    as often as the best token is drawn, and an independent draw still less often.

    Args:
        shared: The draft model's text. It may be kept from run to run, so that what it has read is
            not read again.
        options: The options of the run.
    """

    def __init__(self, shared: SharedText, options: Options) -> None:
        self.shared, self.options = shared, replace(options, logprobs=None)
        self.context = shared.runner.architecture.context
        self.length = DraftLength(options.draft_tokens)

    def begin(self, row: Row) -> None:
        self.row = row
        if self.context is None or len(row.prompt) <= self.context:
            self.shared.seek(row.prompt)

    def draft(self, room: int) -> list[int]:
        known, shared = len(self.row.tokens), self.shared
        if self.context is not None:
            room = min(room, self.context - known + 1)  # the last guess is not read
        count = min(self.length.next(), room)
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
        self.length.learn(guessed, kept)
