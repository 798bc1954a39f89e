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
    """What was generated after one prompt. `finish` is "stop" (a stop token or string) or "length"."""

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
        """Takes the row's newest token and returns the text that is now sure; ends the row at a stop string."""
        piece, found = "", False
        if row.ids[-1] not in stop_ids:
            piece, found = self.stops.push(self.decoder.push(row.ids[-1]))
        if found:
            row.finish = "stop"
        elif row.finish is not None:
            rest, found = self.stops.push(self.decoder.finish())
            piece += rest + self.stops.finish()
            if self.stops.found:
                row.finish = "stop"
        self.text += piece
        self.done = row.finish is not None
        return piece


class TextRun:
    """One run over prompts: iterate for (number, new text) as it comes, then ask for the `completions`.

    `num_samples` continuations of each prompt stand side by side; `draft` is the text of a draft model. Raises
    UsageError, TokenizerError or ContextError for anything a user may have got wrong before any work is done.
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
        listed = isinstance(texts, Iterable) and not isinstance(texts, str | bytes)
        texts = list(texts) if listed else []
        if not listed or not all(isinstance(text, str) for text in texts):
            raise UsageError("prompts must be a list of strings")
        prompts = [tokenizer.encode_prompt(text, special=options.special) for text in texts]
        self.options = options
        self.stop_ids = frozenset[int]() if options.ignore_eos else frozenset(stop_ids)
        self.rows = [Row(list(prompt), i) for prompt in prompts for i in range(options.num_samples)]
        set_limits(self.rows, options, reader.runner.architecture)
        self.prompts = [text for text in texts for _ in range(options.num_samples)]
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
        """What to call a row where there are several: "prompt 2, sample 1", or the one of the two that varies."""
        samples = self.options.num_samples
        prompt, sample = divmod(number, samples)
        names = [f"prompt {prompt + 1}"] if len(self.rows) > samples else []
        return ", ".join(names + ([f"sample {sample + 1}"] if samples > 1 else []))

    def completions(self) -> list[Completion]:
        """What has been generated so far; `finish` is None in those that were interrupted."""
        return [
            Completion(prompt, text.text, row.ids, row.finish, row.logprobs)
            for prompt, text, row in zip(self.prompts, self.texts, self.rows, strict=True)
        ]
