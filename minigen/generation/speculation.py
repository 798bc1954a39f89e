"""Speculative decoding: several tokens are guessed cheaply, and one pass of the model checks them all.

Guesses come from the text itself (prompt lookup, Saxena 2023) or from a smaller model (Leviathan et al. 2023; Chen et
al. 2023). Those papers accept a guess by a draw of its own that leaves the distribution as it was. Here each position
has its own uniform number, so the model's token is a function of its logits: a guess is kept if it is that token, and
at the first one that is not the right token is already there. What comes out is what decoding one by one gives, but for
rounding: logits of a pass over several tokens differ in their last bits. In float32 that decides next to nothing, in 16
bits a near tie may fall otherwise, as it may in a batch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from minigen.backends.base import Array
from minigen.errors import UsageError
from minigen.generation.drafting import Drafter, DraftModel, PromptLookup
from minigen.generation.loop import Row, Runner, Timing
from minigen.generation.options import Options
from minigen.generation.shared_text import SharedText


class Speculation:
    """The guesses of one row: what was read ahead of it, and how much of that has turned out right."""

    def __init__(self, runner: Runner, row: Row, drafter: Drafter, stop_ids: Collection[int], timing: Timing) -> None:
        self.runner, self.row, self.drafter = runner, row, drafter
        self.stop_ids, self.timing = stop_ids, timing
        self.guesses: Sequence[int] = ()  # read after the last token that was not among them
        self.kept = 0  # of them, from the first
        self.logits: Array = None  # (1, 1 + guesses, V), after that token and each guess

    def decode(self, token: int, state: Any) -> Array:
        """The logits (1, 1, V) after the row's newest token: from a pass, where it is not the one that was guessed."""
        if self.kept < len(self.guesses) and token == self.guesses[self.kept]:
            self.kept += 1
            self.timing.accepted += 1
        else:
            again = self.go_back(state) if self.kept < len(self.guesses) else []
            if self.guesses:
                self.drafter.learn(len(self.guesses), self.kept)
            self.guesses, self.kept = self.draft(), 0
            self.timing.drafted += len(self.guesses)
            if self.guesses:
                state.mark()
            at = range(len(again), len(again) + len(self.guesses) + 1) if self.guesses else (-1,)
            self.logits = self.runner.read([[*again, token, *self.guesses]], state, at)
        return self.logits[:, self.kept : self.kept + 1]

    def go_back(self, state: Any) -> list[int]:
        """Takes back the guesses that were wrong. Returns the tokens before the newest that went with them, which are
        read once more: what a recurrence overwrites goes back to the mark before the pass."""
        read = len(self.row.tokens) - 1
        reached = state.reachable(read)
        state.rewind(reached)
        return self.row.tokens[reached:read]

    def draft(self) -> Sequence[int]:
        """Guesses that can be of use: none that the row has no room for, or that would end it."""
        room = self.row.limit - len(self.row.ids) - 1  # the row's last token is never read
        guesses = self.drafter.draft(room) if room > 0 else ()
        end = next((i for i, token in enumerate(guesses) if token in self.stop_ids), len(guesses))
        return guesses[:end]


class SpeculativeRunner(Runner):
    """A Runner for one row that reads guesses along with its tokens.

    `generate` runs on it unchanged: it asks for the logits after each token, and gets them without a pass while its
    tokens are the guessed ones.
    """

    def __init__(self, speculation: Speculation) -> None:
        inner = speculation.runner
        super().__init__(inner.ops, inner.architecture, inner.params)
        object.__setattr__(self, "speculation", speculation)  # Runner is frozen

    ahead = False  # a guess is checked against the token itself
    speculation: Speculation

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> tuple[Array, Any]:
        self.speculation.drafter.begin(self.speculation.row)
        return self.speculation.runner.prefill(prompts, capacity)

    def decode(self, ids: Sequence[int], state: Any) -> Array:
        (token,) = ids
        return self.speculation.decode(token, state)


def draft_text(runner: Runner, draft: Runner) -> SharedText:
    """The text of a draft model, as `speculative` takes it. Raises UsageError for a model with other ids."""
    own, other = runner.architecture.vocab_size, draft.architecture.vocab_size
    if own != other:
        raise UsageError(
            f"the draft model has {other} token ids and the model {own}: take one that was made with the same tokenizer"
        )
    return SharedText(draft)


def check_speculation(runner: Runner, options: Options, draft: bool) -> None:
    """Raises UsageError where what is asked for cannot be sped up by guesses."""
    if options.speculate is not None and draft:
        raise UsageError(f"draft and speculate={options.speculate} both say who guesses: drop one of them")
    if options.beams > 1:
        raise UsageError("beam search follows several texts and speculation one: drop beams, or speculate and draft")
    if not runner.architecture.reads_at_once:
        raise UsageError(
            "a recurrent model reads a token at a time, so guesses save it nothing: drop speculate and draft"
        )


def speculative(
    runner: Runner,
    rows: Sequence[Row],
    options: Options,
    stop_ids: Collection[int],
    timing: Timing,
    draft: SharedText | None = None,
) -> Runner:
    """A runner for `generate` on one row that guesses, by the model of `draft` where it is given.

    The state of `runner` must be one that goes back exactly. Raises UsageError for what is not for guesses.
    """
    check_speculation(runner, options, draft is not None)
    if len(rows) > 1:
        raise UsageError(f"speculation follows one text, not {len(rows)}: ask for one sample of one prompt, or drop it")
    if not rows:
        return runner
    drafter = PromptLookup(options.draft_tokens) if draft is None else DraftModel(draft, options)
    return SpeculativeRunner(Speculation(runner, rows[0], drafter, stop_ids, timing))
