"""Prompt files as a function, for programs: the command `minigen prompt` without its display."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from minigen.errors import MinigenError
from minigen.evaluation.fewshot.checks import check
from minigen.evaluation.fewshot.file import PromptFile
from minigen.evaluation.fewshot.load import load_prompt_file
from minigen.evaluation.fewshot.result import FileResult
from minigen.evaluation.fewshot.run import run_file
from minigen.evaluation.fewshot.summary import ShotsSummary, summarize

if TYPE_CHECKING:
    from minigen.model import Model


@dataclass(frozen=True)
class PromptResult:
    """What a model made of one prompt file.

    Attributes:
        summary: for each number of shots the mean score over items and seeds, its standard error, and the rest of
            the command's table.
        result: every item of every run.
    """

    summary: tuple[ShotsSummary, ...]
    result: FileResult


def with_settings(
    file: PromptFile, shots: Sequence[int] | None, seeds: Sequence[int] | None, limit: int | None
) -> PromptFile:
    """The file with other numbers of examples, other seeds, or its first items only."""
    chosen = replace(
        file.shots, n=tuple(shots or file.shots.n), seeds=tuple(seeds or file.shots.seeds)
    )
    return replace(file, shots=chosen, items=file.items[:limit])


def run_prompts(
    model: Model,
    *files: str | os.PathLike[str],
    shots: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    limit: int | None = None,
) -> list[PromptResult]:
    """Answers the items of prompt files after no, one or a few examples, and scores the answers.

    Args:
        model: a loaded model with a tokenizer.
        files: prompt files, see `minigen help prompts`.
        shots: numbers of examples, in place of those of the file.
        seeds: seeds that choose the examples, in place of those of the file.
        limit: only the first so many items of each file.

    Raises PromptError for a file that is no prompt file, MinigenError for an error that the checks find before
    anything runs.
    """
    tokenizer, context = model.needed_tokenizer, model.architecture.context
    asked = [with_settings(load_prompt_file(name), shots, seeds, limit) for name in files]
    for file in asked:
        for finding in check(file, tokenizer.encode, context, prefix_id=tokenizer.begin_id):
            if finding.level == "error":
                raise MinigenError(f"{finding.where}: {finding.message}")
    results = [run_file(model, file) for file in asked]
    return [PromptResult(summarize(result), result) for result in results]
