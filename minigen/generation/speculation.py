"""Speculative decoding: several tokens are guessed cheaply, and one pass of the model checks them.

Guesses come from the text itself (prompt lookup, Saxena 2023) or from a smaller model (Leviathan et
al. 2023; Chen et al. 2023). These papers accept a guess by an extra draw that preserves the
distribution. Here, each position has its own uniform number, so the model's token is a function of
its logits: a guess is kept if it is that token, and at the first wrong guess the right token is
already known. The text is the same as without guesses, except for rounding: the logits of a pass
over several tokens differ in their last bits. In float32 this hardly ever matters; in 16 bits two
nearly equal tokens may swap, as they may in a batch.
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
    """A Reader of one row that reads guesses together with its tokens.

    As long as the tokens are the guessed ones, it has their logits without a pass.

    Args:
        reader: Does the passes. Its state must be able to rewind exactly.
        row: The row.
        drafter: Makes the guesses.
        stop_ids: The ids that end the row, which are not guessed.
        timing: Gets the number of guesses, and of right ones.
    """

    ahead = False  # to check a guess, the token must be known

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
        self.guesses: Sequence[int] = ()  # of the last pass, after a token that was not guessed
        self.accepted = 0  # how many of them were right so far
        self.logits: Array = None  # (1, 1 + guesses, V), after that token and each guess

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> tuple[Array, Any]:
        self.drafter.begin(self.row)
        return self.reader.prefill(prompts, capacity)

    def read(self, ids: Any, state: Any, at: Sequence[int] = (-1,)) -> Array:
        """The logits (1, 1, V) after the row's newest token, without a pass if it was guessed."""
        assert tuple(at) == (-1,)
        ((token,),) = ids
        if self.accepted < len(self.guesses) and token == self.guesses[self.accepted]:
            self.accepted += 1
            self.timing.accepted += 1
        else:
            self.read_with_guesses(int(token), state)
        return self.logits[:, self.accepted : self.accepted + 1]

    def read_with_guesses(self, token: int, state: Any) -> None:
        """Reads a token that was not guessed, and new guesses of what follows it, in one pass."""
        again: list[int] = []
        if self.accepted < len(self.guesses):
            again = self.go_back(state)
        if self.guesses:
            self.drafter.learn(len(self.guesses), self.accepted)
        self.guesses, self.accepted = self.draft(), 0
        self.timing.drafted += len(self.guesses)
        at: Sequence[int] = (-1,)
        if self.guesses:
            state.mark()
            at = range(len(again), len(again) + len(self.guesses) + 1)
        self.logits = self.reader.read([[*again, token, *self.guesses]], state, at)

    def go_back(self, state: Any) -> list[int]:
        """Takes back the guesses that were wrong.

        A recurrence can only go back to the mark before the pass. Returns the tokens before the
        newest that were taken back too, and must be read again.
        """
        read = len(self.row.tokens) - 1
        reached = state.reachable(read)
        state.rewind(reached)
        return self.row.tokens[reached:read]

    def draft(self) -> Sequence[int]:
        """New guesses, up to the row's limit and to the first one that would end it."""
        room = self.row.limit - len(self.row.ids) - 1  # the row's last token is never read
        guesses = self.drafter.draft(room) if room > 0 else ()
        for i, token in enumerate(guesses):
            if token in self.stop_ids:
                return guesses[:i]
        return guesses


def draft_text(runner: Runner, draft: Runner) -> SharedText:
    """The text of the draft model, for `speculative`.

    Raises UsageError if the two models have different numbers of ids.
    """
    own, other = runner.architecture.vocab_size, draft.architecture.vocab_size
    if own != other:
        raise UsageError(
            f"the draft model has {other} token ids and the model {own}: take one that was made "
            "with the same tokenizer"
        )
    return SharedText(draft)


def check_speculation(runner: Runner, options: Options, draft: bool) -> None:
    """Raises UsageError if guesses cannot speed up a run with these options."""
    if options.speculate is not None and draft:
        raise UsageError(
            f"draft and speculate={options.speculate} both say who guesses: drop one of them"
        )
    if options.beams > 1:
        raise UsageError(
            "beam search follows several texts, and speculation only one: drop beams, or speculate "
            "and draft"
        )
    if not runner.architecture.reads_at_once:
        raise UsageError(
            "a recurrent model reads a token at a time, so guesses save nothing: drop speculate "
            "and draft"
        )


def speculative(
    reader: Reader,
    rows: Sequence[Row],
    options: Options,
    stop_ids: Collection[int],
    timing: Timing,
    draft: SharedText | None = None,
) -> Reader:
    """A reader that guesses, for `loop.generate`.

    Args:
        reader: Does the passes. Its state must be able to rewind exactly.
        rows: At most one row.
        options: The options of the run.
        stop_ids: The ids that end the row.
        timing: Gets the number of guesses, and of right ones.
        draft: The text of the draft model; None to guess from the text itself.

    Raises UsageError for several rows, and if guesses cannot speed up the run.
    """
    check_speculation(reader.runner, options, draft is not None)
    if len(rows) > 1:
        raise UsageError(
            f"speculation follows one text, not {len(rows)}: ask for one sample of one prompt, or "
            "drop it"
        )
    if not rows:
        return reader
    drafter: Drafter = PromptLookup(options.draft_tokens)
    if draft is not None:
        drafter = DraftModel(draft, options)
    return SpeculativeReader(reader, rows[0], drafter, stop_ids, timing)
