"""Answers items of a prompt file on a model, by generation or by log-likelihood.

One `SharedText` serves all items: what their prompts have in common is read once, and items and
choices are branches on it (see branches.py and scoring.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import numpy as np

from minigen.evaluation.fewshot.choice_checks import is_scored
from minigen.evaluation.fewshot.file import Example, Item, PromptError, PromptFile
from minigen.evaluation.fewshot.layout import Prompt, render, render_choices
from minigen.evaluation.fewshot.metrics import calibrate, judge, normalize, pick
from minigen.evaluation.fewshot.result import ItemResult
from minigen.evaluation.fewshot.stretch import Stretch, stretch, unequal_ends
from minigen.evaluation.fewshot.template import fill
from minigen.evaluation.scoring import Scorer, Text
from minigen.generation.options import Options
from minigen.generation.shared_text import BranchReader, SharedText
from minigen.generation.text import TextRun
from minigen.model import Model

PromptLogprobs = tuple[tuple[str, float | None], ...]  # the text of each token, its log-probability


class Likelihoods(NamedTuple):
    """For each answer of one prompt: log-probability in nats, scored tokens, scored bytes."""

    logprobs: list[float]
    tokens: list[int]
    sizes: list[int]


class ItemStretches(NamedTuple):
    """The stretches that are scored for one item with choices or contexts."""

    own: list[Stretch]  # of the item's prompts
    content_free: list[Stretch]
    unconditional: list[Stretch]


class Job:
    """One file on one model, with the text that its prompts share."""

    def __init__(self, model: Model, file: PromptFile, prompt_logprobs: bool = False) -> None:
        self.model = model
        self.file = file
        self.shared = SharedText(model.runner)
        self.prompt_logprobs = prompt_logprobs
        self.prefix = None if model.tokenizer is None else model.tokenizer.begin_id
        self.options = Options.of(**{"temperature": 0, **file.generate})

    def run(self, examples: Sequence[Example], indices: Sequence[int]) -> Iterator[ItemResult]:
        """The results of some items, those with choices or contexts first."""
        to_choose: list[int] = []
        to_generate: list[int] = []
        for i in indices:
            scored = is_scored(self.file.items[i])
            (to_choose if scored else to_generate).append(i)
        results = [*self.choose(examples, to_choose), *self.generate(examples, to_generate)]
        if not self.prompt_logprobs:
            yield from results
            return
        prompts = [self._first_prompt(examples, result.index).text for result in results]
        for result, logprobs in zip(results, self.score_prompts(prompts), strict=True):
            yield replace(result, prompt_logprobs=logprobs)

    def _first_prompt(self, examples: Sequence[Example], index: int) -> Prompt:
        return render(self.file, examples, self.file.items[index])[0]

    def score_prompts(self, prompts: Sequence[str]) -> list[PromptLogprobs]:
        """Each token of each prompt with its log-probability, None for the first token."""
        tokenizer = self.model.needed_tokenizer
        rows = [tokenizer.encode(prompt) for prompt in prompts]
        scores = iter(Scorer(self.shared).score([Text(ids) for ids in rows if ids]))
        results: list[PromptLogprobs] = []
        for ids in rows:
            logprobs: list[float | None] = []
            if ids:
                logprobs = [None, *next(scores).tolist()]
            tokens = [tokenizer.token_bytes(token).decode("utf-8", "replace") for token in ids]
            results.append(tuple(zip(tokens, logprobs, strict=True)))
        return results

    def generate(self, examples: Sequence[Example], indices: Sequence[int]) -> Iterator[ItemResult]:
        """Free answers, as one batch."""
        if not indices:
            return
        prompts = [self._first_prompt(examples, i).text for i in indices]
        reader = BranchReader(self.shared)
        tokenizer = self.model.needed_tokenizer
        run = TextRun(reader, tokenizer, prompts, self.options, self.model.stop_ids)
        for _ in run:
            pass
        for i, completion in zip(indices, run.completions(), strict=True):
            item = self.file.items[i]
            output = completion.text.removeprefix(self.file.answer_sep)
            correct = None
            if item.answer is not None:
                correct = judge(self.file.score.metric, output, item.answer)
            yield ItemResult(i, self.input(item), output, item.answer, correct)

    def choose(self, examples: Sequence[Example], indices: Sequence[int]) -> Iterator[ItemResult]:
        """Choices by log-likelihood, with normalization and calibration, as one batch."""
        items = [self.file.items[i] for i in indices]
        stretches = [self.stretches(examples, item) for item in items]
        flat: list[Stretch] = []
        for item_stretches in stretches:
            for part in item_stretches:
                flat += part
        likelihoods = iter(self.likelihoods(flat))
        for i, item_stretches in zip(indices, stretches, strict=True):
            own = list(islice(likelihoods, len(item_stretches.own)))
            content_free = list(islice(likelihoods, len(item_stretches.content_free)))
            unconditional = list(islice(likelihoods, len(item_stretches.unconditional)))
            yield self._chosen(i, own, content_free, unconditional)

    def _chosen(
        self,
        index: int,
        own: Sequence[Likelihoods],
        content_free: Sequence[Likelihoods],
        unconditional: Sequence[Likelihoods],
    ) -> ItemResult:
        """The result of an item, from the likelihoods of its stretches."""
        item = self.file.items[index]
        how = self.file.score.normalize
        logprobs: list[float] = []
        tokens: list[int] = []
        sizes: list[int] = []
        for one in own:  # one prompt with all choices, or one for each context
            logprobs += one.logprobs
            tokens += one.tokens
            sizes += one.sizes
        base = unconditional[0].logprobs if unconditional else None
        scores = normalize(logprobs, tokens, sizes, base, how)
        if content_free:
            scores = calibrate(scores, [normalize(*one, base, how) for one in content_free])
        best, tied, correct = pick(scores, item.gold)
        choices = item.choices
        if item.contexts:
            choices = tuple(fill(self.file.template, fields) for fields in item.contexts)
        return ItemResult(
            index=index,
            input=self.input(item),
            output=choices[best],
            answer=item.answer,
            correct=correct,
            choices=choices,
            choice_logprobs=tuple(logprobs),
            choice_tokens=tuple(tokens),
            scores=tuple(scores.tolist()),
            tied=tied,
        )

    def stretches(self, examples: Sequence[Example], item: Item) -> ItemStretches:
        """The stretches of an item. Raises PromptError for a choice that cannot be scored."""
        encode = self.model.needed_tokenizer.encode
        prompts = render_choices(self.file, examples, item)
        result = ItemStretches(
            [stretch(encode, prompt) for prompt in prompts.own],
            [stretch(encode, prompt) for prompt in prompts.content_free],
            [stretch(encode, prompt) for prompt in prompts.unconditional],
        )
        for part in result:
            for one in part:
                for problem in one.problems(self.prefix):
                    raise PromptError(f"{item.where}: {problem}")
        for problem in unequal_ends(result.own):
            raise PromptError(f"{item.where}: {problem}")
        return result

    def likelihoods(self, stretches: Sequence[Stretch]) -> list[Likelihoods]:
        """The likelihoods of the answers of each stretch."""
        tokenizer = self.model.needed_tokenizer
        texts: list[Text] = []
        for one in stretches:
            texts += one.texts(self.prefix)
        scores = iter(Scorer(self.shared).score(texts))
        results: list[Likelihoods] = []
        for one in stretches:
            logprobs = [float(np.sum(next(scores))) for _ in one.wholes]
            results.append(Likelihoods(logprobs, one.tokens(), one.bytes(tokenizer)))
        return results

    def input(self, item: Item) -> str:
        """The item's own block, with the first context if it has several."""
        return fill(self.file.template, item.variants[0])
