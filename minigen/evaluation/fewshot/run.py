"""Runs a prompt file on a model: every item with every number of shots and seed.

One state serves the whole file: from run to run it is rewound to where the next prompts differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from minigen.evaluation.fewshot.file import PromptFile
from minigen.evaluation.fewshot.job import Job
from minigen.evaluation.fewshot.layout import choose_examples, run_seeds
from minigen.evaluation.fewshot.result import FileResult, ItemResult, RunResult
from minigen.model import Model

GROUP = 32  # items that run as one batch

Key = tuple[int, int, int]  # shots, seed, item


def settings(file: PromptFile, shots: Sequence[int] | None = None) -> list[tuple[int, int]]:
    """The (shots, seed) of each run; `shots` replaces the numbers of the file."""
    runs: list[tuple[int, int]] = []
    for n in file.shots.n if shots is None else shots:
        runs += [(n, seed) for seed in run_seeds(file, n)]
    return runs


def run_file(
    model: Model,
    file: PromptFile,
    *,
    shots: Sequence[int] | None = None,
    done: Mapping[Key, ItemResult] | None = None,
    on_item: Callable[[int, int, ItemResult], None] | None = None,
    on_start: Callable[[int], None] | None = None,
    prompt_logprobs: bool = False,
) -> FileResult:
    """Runs every item with every number of shots and seed.

    Args:
        model: the model that answers.
        file: the prompt file.
        shots: the numbers of shots; None: those of the file.
        done: results of an earlier run; they are returned as they are.
        on_item: called with the shots, the seed and the result of each item that is run.
        on_start: called with the number of items to run.
        prompt_logprobs: whether each result has the log-probability of each token of its prompt
            (the first prompt, if an item has several contexts).

    Raises PromptError: a setting asks for more examples than there are.
    Raises ContextError: a prompt does not fit.
    Raises TokenizerError: the model has no tokenizer.
    """
    began = time.perf_counter()
    results = dict(done or {})
    todo: list[tuple[int, int, list[int]]] = []  # shots, seed, items to run
    runs = settings(file, shots)
    for n, seed in runs:
        left = [i for i in range(len(file.items)) if (n, seed, i) not in results]
        todo.append((n, seed, left))
    if on_start is not None:
        on_start(sum(len(left) for _, _, left in todo))
    job = Job(model, file, prompt_logprobs)
    for n, seed, left in todo:
        examples = choose_examples(file, n, seed)
        for start in range(0, len(left), GROUP):
            for result in job.run(examples, left[start : start + GROUP]):
                results[n, seed, result.index] = result
                if on_item is not None:
                    on_item(n, seed, result)
    run_results: list[RunResult] = []
    for n, seed in runs:
        items = tuple(results[n, seed, i] for i in range(len(file.items)))
        run_results.append(RunResult(n, seed, items))
    return FileResult(
        file=file.path,
        model=str(model.folder),
        runs=tuple(run_results),
        tokens_read=job.shared.tokens_read,
        tokens_saved=job.shared.tokens_saved,
        seconds=time.perf_counter() - began,
    )
