"""Which tokens are scored: for all choices of an item, from the same token boundary of the prompt.

White space at the end of a prompt belongs to what follows it, as in lm-evaluation-harness: "A: "
and "5" are scored as "A:" and " 5". The rest of the prompt is the context. Context and context +
answer are tokenized, and the scored stretch begins after the first tokens that all of them share.
Usually that is the end of the context. Where an answer merges with the context's last tokens ("Ans"
+ "wer" may be one token), it is before those, for every answer.

If nothing is left before the stretch, a prefix token stands there: the tokenizer's `begin_id`.
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

NO_PREFIX = "this model's tokenizer has neither a bos nor an eos token"


@dataclass(frozen=True)
class Stretch:
    """A prompt and its answers as tokens."""

    prompt: Prompt
    white_space: str  # at the end of the prompt, scored with each answer
    context: tuple[int, ...]  # the tokens of the prompt without that white space
    wholes: tuple[tuple[int, ...], ...]  # the tokens of prompt + answer, for each answer
    start: int  # first scored token: how many tokens the context and all wholes share

    @property
    def merged(self) -> tuple[int, ...]:
        """The context's last tokens if some answer changes them; they are scored with each."""
        return self.context[self.start :]

    @property
    def merging_answer(self) -> str:
        """The first answer that changes the context's last tokens."""
        for answer, ids in zip(self.prompt.answers, self.wholes, strict=True):
            if common_length(self.context, ids) == self.start:
                return answer
        raise AssertionError("some answer has the shortest common beginning")

    def texts(self, prefix: int | None) -> list[Text]:
        """A Scorer's text for each answer; `prefix` is needed if nothing comes before."""
        if self.start > 0:
            return [Text(ids, self.start) for ids in self.wholes]
        assert prefix is not None
        return [Text((prefix, *ids), 1) for ids in self.wholes]

    def tokens(self) -> list[int]:
        """How many tokens are scored for each answer."""
        return [len(ids) - self.start for ids in self.wholes]

    def bytes(self, tokenizer: Tokenizer) -> list[int]:
        """How many bytes of UTF-8 are scored for each answer, with a scored end of the prompt."""
        end = len(self.white_space.encode())
        for token in self.merged:
            end += len(tokenizer.token_bytes(token))
        if self.start <= len(tokenizer.start_ids):
            end = len(self.prompt.text.encode())  # all of it; its first token may add bytes
        return [end + len(answer.encode()) for answer in self.prompt.answers]

    def problems(self, prefix: int | None) -> Iterator[str]:
        """Why the answers cannot be scored, each worded as the end of a message."""
        end = f"{self.prompt.text[-12:]!r}"
        for answer, ids in zip(self.prompt.answers, self.wholes, strict=True):
            if common_length(self.context, ids) == len(ids):
                yield (
                    f"{short(answer)} adds no token to the prompt, after {end}, so it has no "
                    "probability; reword it"
                )
        if self.start == 0 and prefix is None:
            yield (
                f"no token precedes the choices, after {end}, and {NO_PREFIX}; give the prompt "
                "some text"
            )


def stretch(encode: Encode, prompt: Prompt) -> Stretch:
    """The stretch of a prompt with at least one answer. Raises what `encode` raises."""
    text = prompt.text.rstrip()
    white_space = prompt.text[len(text) :]
    context = tuple(encode(text))
    wholes = tuple(tuple(encode(prompt.text + answer)) for answer in prompt.answers)
    start = min(common_length(context, ids) for ids in wholes)
    return Stretch(prompt, white_space, context, wholes, start)


def unequal_ends(stretches: Sequence[Stretch]) -> Iterator[str]:
    """Why an answer cannot be compared after several prompts: different ends of them are scored."""
    first = stretches[0]
    for other in stretches[1:]:
        if (other.white_space, other.merged) != (first.white_space, first.merged):
            yield (
                f"different parts of the contexts that end in {first.prompt.text[-12:]!r} and "
                f"{other.prompt.text[-12:]!r} are scored with the continuation; let them end "
                "alike, without white space, and begin answer_sep with a space"
            )
            return
