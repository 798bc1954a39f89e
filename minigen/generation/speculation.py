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
from minigen.generation.options import Options
from minigen.generation.reader import Reader, Runner
from minigen.generation.rows import Row, Timing
from minigen.generation.shared_text import SharedText


class SpeculativeReader:
    """A Reader of one row that reads guesses along with its tokens.

    It is asked for the logits after each token, and has them without a pass while the tokens are
    the guessed ones. The state of `reader`, which does the passes, must be one that goes back
    exactly.
    """

    ahead = False  # a guess is checked against the token itself

    def __init__(
        self,
        reader: Reader,
        row: Row,
        drafter: Drafter,
        stop_ids: Collection[int],
        timing: Timing,
    ) -> None:
        self.reader, self.runner = reader, reader.runner
        self.row, self.drafter = row, drafter
        self.stop_ids, self.timing = stop_ids, timing
        self.guesses: Sequence[int] = ()  # read after the last token that was not among them
        self.accepted = 0  # of them, from the first
        self.logits: Array = None  # (1, 1 + guesses, V), after that token and each guess

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> tuple[Array, Any]:
        self.drafter.begin(self.row)
        return self.reader.prefill(prompts, capacity)

    def read(self, ids: Any, state: Any, at: Sequence[int] = (-1,)) -> Array:
        """The logits (1, 1, V) after the row's newest token, by a pass if it was not guessed."""
        assert tuple(at) == (-1,)
        ((token,),) = ids
        if self.accepted < len(self.guesses) and token == self.guesses[self.accepted]:
            self.accepted += 1
            self.timing.accepted += 1
        else:
            self.read_with_guesses(int(token), state)
        return self.logits[:, self.accepted : self.accepted + 1]

    def read_with_guesses(self, token: int, state: Any) -> None:
        """One pass over a token that was not guessed and over new guesses of what follows it."""
        again: list[int] = []
        if self.accepted < len(self.guesses):
            again = self.go_back(state)
        if self.guesses:
            self.drafter.learn(len(self.guesses), self.accepted)
        self.guesses, self.accepted = self.draft(), 0
        self.timing.drafted += len(self.guesses)
        wanted: Sequence[int] = (-1,)
        if self.guesses:
            state.mark()
            wanted = range(len(again), len(again) + len(self.guesses) + 1)
        self.logits = self.reader.read([[*again, token, *self.guesses]], state, wanted)

    def go_back(self, state: Any) -> list[int]:
        """Takes back the guesses that were wrong.

        Returns the tokens before the newest that went with them, which are read once more: what a
        recurrence overwrites goes back to the mark before the pass.
        """
        read = len(self.row.tokens) - 1
        reached = state.reachable(read)
        state.rewind(reached)
        return self.row.tokens[reached:read]

    def draft(self) -> Sequence[int]:
        """Guesses that can be of use: none that the row has no room for, or that would end it."""
        room = self.row.limit - len(self.row.ids) - 1  # the row's last token is never read
        guesses = self.drafter.draft(room) if room > 0 else ()
        for i, token in enumerate(guesses):
            if token in self.stop_ids:
                return guesses[:i]
        return guesses


def draft_text(runner: Runner, draft: Runner) -> SharedText:
    """The text of a draft model, as `speculative` takes it.

    Raises UsageError for a model with other ids.
    """
    own, other = runner.architecture.vocab_size, draft.architecture.vocab_size
    if own != other:
        raise UsageError(
            f"the draft model has {other} token ids and the model {own}: take one that was made with the same tokenizer"
        )
    return SharedText(draft)


def check_speculation(runner: Runner, options: Options, draft: bool) -> None:
    """Raises UsageError where what is asked for cannot be sped up by guesses."""
    if options.speculate is not None and draft:
        raise UsageError(
            f"draft and speculate={options.speculate} both say who guesses: drop one of them"
        )
    if options.beams > 1:
        raise UsageError(
            "beam search follows several texts and speculation one: drop beams, or speculate and draft"
        )
    if not runner.architecture.reads_at_once:
        raise UsageError(
            "a recurrent model reads a token at a time, so guesses save it nothing: drop speculate and draft"
        )


def speculative(
    reader: Reader,
    rows: Sequence[Row],
    options: Options,
    stop_ids: Collection[int],
    timing: Timing,
    draft: SharedText | None = None,
) -> Reader:
    """A reader for `generate` on one row that guesses, by the model of `draft` where it is given.

    The state of `reader` must be one that goes back exactly. Raises UsageError for what is not for
    guesses.
    """
    check_speculation(reader.runner, options, draft is not None)
    if len(rows) > 1:
        raise UsageError(
            f"speculation follows one text, not {len(rows)}: ask for one sample of one prompt, or drop it"
        )
    if not rows:
        return reader
    drafter: Drafter = PromptLookup(options.draft_tokens)
    if draft is not None:
        drafter = DraftModel(draft, options)
    return SpeculativeReader(reader, rows[0], drafter, stop_ids, timing)
