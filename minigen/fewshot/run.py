"""Running a prompt file on a model: what items share is read once, whatever the setting, the item or the choice.

One state serves the whole file. From run to run it goes back to where the next prompts differ; items and choices are
branches on it (see branches.py and scoring.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from minigen.fewshot.file import Example, Item, PromptFile
from minigen.fewshot.layout import Prompt, choose_examples, render, render_content_free, render_unconditional
from minigen.fewshot.metrics import calibrate, judge, normalise, pick
from minigen.fewshot.result import FileResult, ItemResult, RunResult
from minigen.fewshot.template import fill
from minigen.model import Model
from minigen.options import Options
from minigen.scoring import Scorer, Text
from minigen.shared_text import SharedRunner, SharedText, common_length
from minigen.text import TextRun

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


class Job:
    """One file on one model, with the text that its prompts share."""

    def __init__(self, model: Model, file: PromptFile, prompt_logprobs: bool = False) -> None:
        self.model, self.file, self.shared = model, file, SharedText(model.runner)
        self.prompt_logprobs = prompt_logprobs
        self.options = Options.of(**{"temperature": 0, **file.generate})

    def run(self, examples: Sequence[Example], indices: Sequence[int]) -> Iterator[ItemResult]:
        """The results of some items, those with choices or contexts first."""
        chosen = [i for i in indices if self.file.items[i].choices or self.file.items[i].contexts]
        results = [*self.choose(examples, chosen)]
        results += self.generate(examples, [i for i in indices if i not in chosen])
        if not self.prompt_logprobs:
            yield from results
            return
        prompts = [render(self.file, examples, self.file.items[result.index])[0].text for result in results]
        for result, scored in zip(results, self.score_prompts(prompts), strict=True):
            yield replace(result, prompt_logprobs=scored)

    def score_prompts(self, prompts: Sequence[str]) -> list[tuple[tuple[str, float | None], ...]]:
        """Each token of each prompt with its log-probability; nothing stands before the first."""
        tokenizer = self.model.needed_tokenizer
        texts = [Text(tokenizer.encode(prompt)) for prompt in prompts]
        found = Scorer(self.shared).score(texts)
        return [
            tuple(
                (tokenizer.token_bytes(token).decode("utf-8", "replace"), value)
                for token, value in zip(text.ids, [None, *map(float, logprobs)], strict=True)
            )
            for text, logprobs in zip(texts, found, strict=True)
        ]

    def generate(self, examples: Sequence[Example], indices: Sequence[int]) -> Iterator[ItemResult]:
        """Free answers, as one batch."""
        if not indices:
            return
        prompts = [render(self.file, examples, self.file.items[i])[0] for i in indices]
        runner, tokenizer = SharedRunner(self.shared), self.model.needed_tokenizer
        run = TextRun(runner, tokenizer, [prompt.text for prompt in prompts], self.options, self.model.stop_ids)
        for _ in run:
            pass
        for i, completion in zip(indices, run.completions(), strict=True):
            item, text = self.file.items[i], completion.text
            output = text.removeprefix(self.file.answer_sep)
            correct = None if item.answer is None else judge(self.file.score.metric, output, item.answer)
            yield ItemResult(i, self.input(item), output, item.answer, correct)

    def choose(self, examples: Sequence[Example], indices: Sequence[int]) -> Iterator[ItemResult]:
        """Choices by log-likelihood, and whatever normalisation and calibration need beside, as one batch."""
        how = self.file.score
        wanted: list[Prompt] = []
        spans: list[list[slice]] = []  # for each item: its prompts, those without content, the unconditional one
        for i in indices:
            item = self.file.items[i]
            sets = [render(self.file, examples, item)]
            sets.append(render_content_free(self.file, examples, item) if how.calibrate else [])
            sets.append([render_unconditional(self.file, item)] if how.normalize == "uncond" else [])
            spans.append([])
            for prompts in sets:
                spans[-1].append(slice(len(wanted), len(wanted) + len(prompts)))
                wanted += prompts
        sums, counts = self.likelihoods(wanted)
        for i, (main, free, uncond) in zip(indices, spans, strict=True):
            item = self.file.items[i]
            logprobs = [x for one in sums[main] for x in one]
            tokens = [n for one in counts[main] for n in one]
            answers = [answer for prompt in wanted[main] for answer in prompt.answers]
            sizes = [len(answer.encode()) for answer in answers]
            base = sums[uncond][0] if sums[uncond] else None
            scores = normalise(logprobs, tokens, sizes, base, how.normalize)
            if how.calibrate:
                neutral = [normalise(one, tokens, sizes, base, how.normalize) for one in sums[free]]
                scores = calibrate(scores, neutral)
            best, tied, correct = pick(scores, item.gold)
            choices = item.choices or tuple(fill(self.file.template, fields) for fields in item.contexts)
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

    def likelihoods(self, prompts: Sequence[Prompt]) -> tuple[list[list[float]], list[list[int]]]:
        """For each prompt the log-probability of each of its answers, and of how many tokens it is the sum.

        An answer's tokens are those of prompt + answer from where they differ from the prompt's own.
        """
        tokenizer = self.model.needed_tokenizer
        texts: list[Text] = []
        for prompt in prompts:
            own = tokenizer.encode(prompt.text)
            for answer in prompt.answers:
                ids = tokenizer.encode(prompt.text + answer)
                texts.append(Text(ids, max(1, min(common_length(own, ids), len(ids) - 1))))
        found = iter(Scorer(self.shared).score(texts))
        scored = [[next(found) for _ in prompt.answers] for prompt in prompts]
        return [[float(np.sum(x)) for x in one] for one in scored], [[len(x) for x in one] for one in scored]

    def input(self, item: Item) -> str:
        """The item's own block, of the first context where it has several."""
        return fill(self.file.template, item.variants[0])
