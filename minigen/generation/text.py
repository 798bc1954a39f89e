"""From generated ids to text: whole characters as they come, cut before a stop string."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from minigen.errors import UsageError
from minigen.generation.dispatch import steps
from minigen.generation.options import Options
from minigen.generation.reader import Reader
from minigen.generation.rows import Row, Timing, TokenLogprob, set_limits
from minigen.generation.shared_text import SharedText
from minigen.generation.stopping import StopStrings
from minigen.tokenizer import Tokenizer


@dataclass(frozen=True)
class Completion:
    """What was generated after one prompt.

    Fields:
        prompt: The prompt.
        text: The text after it.
        ids: The new ids, a stop id included.
        finish: "stop" for a stop id or string, "length" at the limit, None if interrupted.
        logprobs: The log-probability of each id, if requested.
    """

    prompt: str
    text: str
    ids: list[int]
    finish: str | None
    logprobs: list[TokenLogprob]


class RowText:
    """The text of one row while it grows."""

    def __init__(self, tokenizer: Tokenizer, row: Row, stop: Sequence[str]) -> None:
        self.decoder = tokenizer.stream(row.prompt)
        self.stops = StopStrings(stop)
        self.text = ""
        self.done = False  # the row has ended, and its last token is in the text

    def push(self, row: Row, stop_ids: Collection[int]) -> str:
        """Takes the row's newest token, and ends the row at a stop string.

        Returns the text that is certain now.
        """
        piece, stopped = "", False
        if row.ids[-1] not in stop_ids:
            piece, stopped = self.stops.push(self.decoder.push(row.ids[-1]))
        if stopped:
            row.finish = "stop"
        elif row.finish is not None:
            rest, _ = self.stops.push(self.decoder.finish())
            piece += rest + self.stops.finish()
            if self.stops.found:
                row.finish = "stop"
        self.text += piece
        self.done = row.finish is not None
        return piece


class TextRun:
    """One run over prompts: iterate for (number, new text) as it comes, then call `completions`.

    The `num_samples` continuations of a prompt are next to each other.

    Args:
        reader: Computes the logits.
        tokenizer: The model's tokenizer.
        texts: The prompts.
        options: How to generate.
        stop_ids: The ids that end a text, unless the options say to ignore them.
        draft: The text of a draft model, for speculation.

    Raises UsageError, TokenizerError or ContextError for a mistake of the user, before any work.
    """

    def __init__(
        self,
        reader: Reader,
        tokenizer: Tokenizer,
        texts: Sequence[str],
        options: Options,
        stop_ids: Collection[int],
        draft: SharedText | None = None,
    ) -> None:
        texts = list_of_strings(texts)
        prompts = [tokenizer.encode_prompt(text, special=options.special) for text in texts]
        self.options = options
        self.stop_ids = frozenset(stop_ids)
        if options.ignore_eos:
            self.stop_ids = frozenset()
        self.prompts: list[str] = []
        self.rows: list[Row] = []
        for text, prompt in zip(texts, prompts, strict=True):
            for sample in range(options.num_samples):
                self.prompts.append(text)
                self.rows.append(Row(list(prompt), sample))
        set_limits(self.rows, options, reader.runner.architecture)
        self.texts = [RowText(tokenizer, row, options.stop) for row in self.rows]
        self.timing = Timing()
        self.steps = steps(reader, self.rows, options, self.stop_ids, self.timing, draft)

    def __iter__(self) -> Iterator[tuple[int, str]]:
        numbers = {id(row): i for i, row in enumerate(self.rows)}
        for live in self.steps:
            for row in live:
                i = numbers[id(row)]
                piece = self.texts[i].push(row, self.stop_ids)
                if piece:
                    yield i, piece

    def label(self, number: int) -> str:
        """The name of a row: "prompt 2, sample 1", without what there is only one of."""
        samples = self.options.num_samples
        prompt, sample = divmod(number, samples)
        names = []
        if len(self.rows) > samples:
            names.append(f"prompt {prompt + 1}")
        if samples > 1:
            names.append(f"sample {sample + 1}")
        return ", ".join(names)

    def completions(self) -> list[Completion]:
        """What has been generated so far."""
        return [
            Completion(prompt, text.text, row.ids, row.finish, row.logprobs)
            for prompt, text, row in zip(self.prompts, self.texts, self.rows, strict=True)
        ]


def list_of_strings(prompts: object) -> list[str]:
    """The prompts as a list. Raises UsageError unless they are a sequence of strings."""
    if isinstance(prompts, Iterable) and not isinstance(prompts, str | bytes):
        texts = list(prompts)
        if all(isinstance(text, str) for text in texts):
            return texts
    raise UsageError("prompts must be a list of strings")
