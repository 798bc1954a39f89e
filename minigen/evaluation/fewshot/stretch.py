"""Which tokens are scored: for all choices of an item the same stretch of text, from one token boundary of the prompt.

White space at the end of a prompt belongs to what follows it, as in lm-evaluation-harness: "A: " and "5" are scored as
"A:" and " 5". What is left is the context. Context and context + answer are tokenized, and the stretch begins after the
first tokens that the context and all of its answers have in common. That is the end of the context, but where an answer
melts into its last tokens ("Ans" + "wer" may be one token) it is before those, for every answer.

Where nothing is left before the stretch, a prefix token stands there: the tokenizer's `begin_id`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from minigen.evaluation.fewshot.layout import Prompt
from minigen.evaluation.fewshot.source import short
from minigen.evaluation.scoring import Text
from minigen.generation.shared_text import common_length
from minigen.tokenizer import Tokenizer

Encode = Callable[[str], list[int]]

NO_PREFIX = "this model's tokenizer has no token that begins a text (bos) or ends one (eos)"


@dataclass(frozen=True)
class Stretch:
    """A prompt and its answers as tokens."""

    prompt: Prompt
    white_space: str  # at the end of the prompt: scored with each answer
    context: tuple[int, ...]  # the tokens of the prompt without it
    wholes: tuple[tuple[int, ...], ...]  # for each answer those of prompt + answer
    start: int  # how many tokens the context and all of the wholes begin with: those after them are scored

    @property
    def melted(self) -> tuple[int, ...]:
        """The context's last tokens, which some answer changes: their text is scored with every answer."""
        return self.context[self.start :]

    @property
    def melting(self) -> str:
        """The first answer that changes them."""
        assert self.melted
        pairs = zip(self.prompt.answers, self.wholes, strict=True)
        return next(
            answer for answer, ids in pairs if common_length(self.context, ids) == self.start
        )

    def texts(self, prefix: int | None) -> list[Text]:
        """What a Scorer takes, one for each answer. `prefix` is only needed where nothing stands before the stretch."""
        if self.start > 0:
            return [Text(ids, self.start) for ids in self.wholes]
        assert prefix is not None
        return [Text((prefix, *ids), 1) for ids in self.wholes]

    def tokens(self) -> list[int]:
        """How many tokens of each answer are scored."""
        return [len(ids) - self.start for ids in self.wholes]

    def bytes(self, tokenizer: Tokenizer) -> list[int]:
        """How many bytes of UTF-8 they stand for: those of the answer, and of the prompt's end where that is scored."""
        end = len(self.white_space.encode()) + sum(
            len(tokenizer.token_bytes(token)) for token in self.melted
        )
        if self.start <= len(
            tokenizer.start_ids
        ):  # all of the prompt, whatever its first token adds to the text
            end = len(self.prompt.text.encode())
        return [end + len(answer.encode()) for answer in self.prompt.answers]

    def problems(self, prefix: int | None) -> Iterator[str]:
        """Why the answers cannot be scored, each as the end of a message."""
        end = f"{self.prompt.text[-12:]!r}"
        for answer, ids in zip(self.prompt.answers, self.wholes, strict=True):
            if common_length(self.context, ids) == len(ids):
                yield f"{short(answer)} adds no token to the prompt, after {end}, so it has no probability; reword it"
        if self.start == 0 and prefix is None:
            what = f"no token stands before the choices, after {end}, and {NO_PREFIX}"
            yield f"{what}; give the prompt some text"


def stretch(encode: Encode, prompt: Prompt) -> Stretch:
    """Finds the stretch of a prompt with at least one answer. Raises what `encode` raises."""
    text = prompt.text.rstrip()
    context = tuple(encode(text))
    wholes = tuple(tuple(encode(prompt.text + answer)) for answer in prompt.answers)
    start = min(common_length(context, ids) for ids in wholes)
    return Stretch(prompt, prompt.text[len(text) :], context, wholes, start)


def unequal_ends(stretches: Sequence[Stretch]) -> Iterator[str]:
    """Why an answer cannot be compared after several prompts: what is scored of their ends is not the same text."""
    first = stretches[0]
    for other in stretches[1:]:
        if (other.white_space, other.melted) != (first.white_space, first.melted):
            ends = f"{first.prompt.text[-12:]!r} and {other.prompt.text[-12:]!r}"
            what = f"the contexts that end in {ends} have an unequal part of their ends scored with the continuation"
            yield f"{what}; let them end alike, without white space, and begin answer_sep with a space"
            return
