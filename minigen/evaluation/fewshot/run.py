"""Running a prompt file on a model: what items share is read once, whatever the setting, the item or the choice.

One state serves the whole file. From run to run it goes back to where the next prompts differ; items and choices are
branches on it (see branches.py and scoring.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import numpy as np

from minigen.evaluation.fewshot.file import Example, Item, PromptError, PromptFile
from minigen.evaluation.fewshot.layout import choose_examples, render, render_choices
from minigen.evaluation.fewshot.metrics import calibrate, judge, normalise, pick
from minigen.evaluation.fewshot.result import FileResult, ItemResult, RunResult
from minigen.evaluation.fewshot.stretch import Stretch, stretch, unequal_ends
from minigen.evaluation.fewshot.template import fill
from minigen.evaluation.scoring import Scorer, Text
from minigen.generation.options import Options
from minigen.generation.shared_text import BranchReader, SharedText
from minigen.generation.text import TextRun
from minigen.model import Model

GROUP = 32  # items that run together, and are finished together

Key = tuple[int, int, int]  # shots, seed, item


def settings(file: PromptFile, shots: Sequence[int] | None = None) -> list[tuple[int, int]]:
    """The (shots, seed) of each run: a seed for each where examples are drawn, one where none are."""
    drawn = file.shots.pick != "first"
    return [
        (n, seed)
        for n in (file.shots.n if shots is None else shots)
        for seed in (file.shots.seeds if drawn and n > 0 else file.shots.seeds[:1])
    ]


def run_file(
    model: Model,
    file: PromptFile,
    *,
    shots: Sequence[int] | None = None,
    done: Mapping[Key, ItemResult] | None = None,
    on_item: Callable[[int, int, ItemResult], None] = lambda shots, seed, result: None,
    on_start: Callable[[int], None] = lambda items: None,
    prompt_logprobs: bool = False,
) -> FileResult:
    """Runs every item under every setting and returns all results, those of `done` (not run again) among them.

    With `prompt_logprobs` a result has the log-probability of each token of its prompt (the first prompt, where an item
    has several contexts).

    `on_start` is told how many items are to be run, `on_item` each result, a group at a time. Raises PromptError where
    a setting asks for more examples than there are, ContextError for a prompt that does not fit, TokenizerError where
    the model has no tokenizer.
    """
    done = done or {}
    began = time.perf_counter()
    todo = settings(file, shots)
    items = range(len(file.items))
    on_start(sum((n, seed, i) not in done for n, seed in todo for i in items))
    job = Job(model, file, prompt_logprobs)
    runs = []
    for n, seed in todo:
        results = {i: done[n, seed, i] for i in items if (n, seed, i) in done}
        examples = choose_examples(file, n, seed)
        left = [i for i in items if i not in results]
        for start in range(0, len(left), GROUP):
            for result in job.run(examples, left[start : start + GROUP]):
                results[result.index] = result
                on_item(n, seed, result)
        runs.append(RunResult(n, seed, tuple(results[i] for i in items)))
    return FileResult(
        file.path,
        str(model.folder),
        tuple(runs),
        job.shared.tokens_read,
        job.shared.tokens_saved,
        time.perf_counter() - began,
    )


class Likelihoods(NamedTuple):
    """Of each answer after one prompt: its log-probability in nats, and of how many tokens and bytes."""

    logprobs: list[float]
    tokens: list[int]
    sizes: list[int]


class Job:
    """One file on one model, with the text that its prompts share."""

    def __init__(self, model: Model, file: PromptFile, prompt_logprobs: bool = False) -> None:
        self.model, self.file, self.shared = model, file, SharedText(model.runner)
        self.prompt_logprobs = prompt_logprobs
        self.prefix = None if model.tokenizer is None else model.tokenizer.begin_id
        self.options = Options.of(**{"temperature": 0, **file.generate})

    def run(self, examples: Sequence[Example], indices: Sequence[int]) -> Iterator[ItemResult]:
        """The results of some items, those with choices or contexts first."""
        chosen = [i for i in indices if self.file.items[i].choices or self.file.items[i].contexts]
        results = [*self.choose(examples, chosen)]
        results += self.generate(examples, [i for i in indices if i not in chosen])
        if not self.prompt_logprobs:
            yield from results
            return
        prompts = [
            render(self.file, examples, self.file.items[result.index])[0].text for result in results
        ]
        for result, scored in zip(results, self.score_prompts(prompts), strict=True):
            yield replace(result, prompt_logprobs=scored)

    def score_prompts(self, prompts: Sequence[str]) -> list[tuple[tuple[str, float | None], ...]]:
        """Each token of each prompt with its log-probability; nothing stands before the first."""
        tokenizer = self.model.needed_tokenizer
        rows = [tokenizer.encode(prompt) for prompt in prompts]
        found = iter(Scorer(self.shared).score([Text(ids) for ids in rows if ids]))
        scored: list[tuple[tuple[str, float | None], ...]] = []
        for ids in rows:
            values = [None, *map(float, next(found))] if ids else []
            pieces = [tokenizer.token_bytes(token).decode("utf-8", "replace") for token in ids]
            scored.append(tuple(zip(pieces, values, strict=True)))
        return scored

    def generate(self, examples: Sequence[Example], indices: Sequence[int]) -> Iterator[ItemResult]:
        """Free answers, as one batch."""
        if not indices:
            return
        prompts = [render(self.file, examples, self.file.items[i])[0] for i in indices]
        reader, tokenizer = BranchReader(self.shared), self.model.needed_tokenizer
        run = TextRun(
            reader,
            tokenizer,
            [prompt.text for prompt in prompts],
            self.options,
            self.model.stop_ids,
        )
        for _ in run:
            pass
        for i, completion in zip(indices, run.completions(), strict=True):
            item, text = self.file.items[i], completion.text
            output = text.removeprefix(self.file.answer_sep)
            correct = (
                None if item.answer is None else judge(self.file.score.metric, output, item.answer)
            )
            yield ItemResult(i, self.input(item), output, item.answer, correct)

    def choose(self, examples: Sequence[Example], indices: Sequence[int]) -> Iterator[ItemResult]:
        """Choices by log-likelihood, and whatever normalisation and calibration need beside, as one batch."""
        how = self.file.score.normalize
        wanted: list[Stretch] = []
        spans: list[
            list[slice]
        ] = []  # for each item: its prompts, those without content, the unconditional one
        for i in indices:
            spans.append([])
            for stretches in self.stretches(examples, self.file.items[i]):
                spans[-1].append(slice(len(wanted), len(wanted) + len(stretches)))
                wanted += stretches
        scored = self.likelihoods(wanted)
        for i, (own, free, unconditional) in zip(indices, spans, strict=True):
            item = self.file.items[i]
            logprobs, tokens, sizes = (
                list(chain(*values)) for values in zip(*scored[own], strict=True)
            )
            base = scored[unconditional][0].logprobs if scored[unconditional] else None
            scores = normalise(logprobs, tokens, sizes, base, how)
            if self.file.score.calibrate:
                scores = calibrate(scores, [normalise(*one, base, how) for one in scored[free]])
            best, tied, correct = pick(scores, item.gold)
            choices = item.choices or tuple(
                fill(self.file.template, fields) for fields in item.contexts
            )
            yield ItemResult(
                i,
                self.input(item),
                choices[best],
                item.answer,
                correct,
                choices,
                tuple(float(x) for x in logprobs),
                tuple(tokens),
                tuple(float(x) for x in scores),
                tied,
            )

    def stretches(
        self, examples: Sequence[Example], item: Item
    ) -> tuple[list[Stretch], list[Stretch], list[Stretch]]:
        """Those of the item's own prompts, of those without content, and of the unconditional one.

        Raises PromptError for a choice that cannot be scored.
        """
        encode = self.model.needed_tokenizer.encode
        prompts = render_choices(self.file, examples, item)
        own = [stretch(encode, prompt) for prompt in prompts.own]
        free = [stretch(encode, prompt) for prompt in prompts.content_free]
        unconditional = [stretch(encode, prompt) for prompt in prompts.unconditional]
        problems = chain(
            *(one.problems(self.prefix) for one in (*own, *free, *unconditional)), unequal_ends(own)
        )
        for problem in problems:
            raise PromptError(f"{item.where}: {problem}")
        return own, free, unconditional

    def likelihoods(self, stretches: Sequence[Stretch]) -> list[Likelihoods]:
        """What the model gives to the answers of each stretch."""
        tokenizer = self.model.needed_tokenizer
        found = iter(
            Scorer(self.shared).score(
                [text for one in stretches for text in one.texts(self.prefix)]
            )
        )
        return [
            Likelihoods(
                [float(np.sum(next(found))) for _ in one.wholes], one.tokens(), one.bytes(tokenizer)
            )
            for one in stretches
        ]

    def input(self, item: Item) -> str:
        """The item's own block, of the first context where it has several."""
        return fill(self.file.template, item.variants[0])
