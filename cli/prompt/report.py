"""The output of `prompt`: a table, the answers, JSON and CSV."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..display.tables import WIDE, render
from ..display.terminal import harmless

if TYPE_CHECKING:
    from minigen.evaluation.fewshot.result import FileResult, ItemResult, RunResult

NONE = "-"  # a value that does not exist


@dataclass(frozen=True)
class Report:
    """One file's results, and what a reader needs in addition."""

    result: FileResult
    name: str  # short and unique
    metric: str


def names(paths: Sequence[Path]) -> list[str]:
    """Each file's name without its ending; the whole path if another file has that name too."""
    short = [path.name.removesuffix(".prompt.toml") for path in paths]
    counts = Counter(short)
    unique = []
    for name, path in zip(short, paths, strict=True):
        unique.append(name if counts[name] == 1 else str(path))
    return unique


# -- for programs --
def as_json(result: FileResult) -> dict[str, Any]:
    """One object per file."""
    from minigen.evaluation.fewshot.summary import summarize, summarize_run

    results = []
    for run in result.runs:
        summary = summarize_run(run)
        results.append(
            {
                "shots": run.shots,
                "seed": run.seed,
                "accuracy": summary.accuracy,
                "stderr": summary.stderr,
                "n": summary.n,
                "items": [item_as_json(item) for item in run.items],
                "ties": summary.ties,
                "unscored": summary.unscored,
            }
        )
    return {
        "file": str(result.file),
        "model": result.model,
        "results": results,
        "tokens_read": result.tokens_read,
        "tokens_saved": result.tokens_saved,
        "seconds": result.seconds,
        "by_shots": [asdict(summary) for summary in summarize(result)],
    }


def item_as_json(item: ItemResult) -> dict[str, Any]:
    """An item's result, the most important keys first."""
    values = asdict(item)
    if not item.prompt_logprobs:  # only there if they were asked for
        del values["prompt_logprobs"]
    first = ("input", "output", "answer", "choice_logprobs", "choice_tokens")
    ordered = {name: values.pop(name) for name in first}
    return ordered | values


def as_csv(report: Report, heading: bool) -> str:
    """One row per run."""
    from minigen.evaluation.fewshot.summary import summarize_run

    rows = []
    for run in report.result.runs:
        about = {
            "file": str(report.result.file),
            "model": report.result.model,
            "metric": report.metric,
        }
        rows.append(about | asdict(summarize_run(run)))
    stream = StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    if heading:
        writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


# -- for people --
def footer(reports: Sequence[Report]) -> str:
    """The model, and the work for all files together."""
    results = [report.result for report in reports]
    read = sum(result.tokens_read for result in results)
    saved = sum(result.tokens_saved for result in results)
    seconds = sum(result.seconds for result in results)
    work = f"{read:,} tokens read, {saved:,} saved"
    if saved:
        work += f" ({100 * saved / (read + saved):.1f} %)"
    return f"{results[0].model}: {work}, {seconds:.1f} s\n"


def answers(report: Report, several: bool, width: int = WIDE, terminal: bool = False) -> str:
    """One line per item: its number, how correct it is, the answer, the output and the input."""
    tables = []
    for run in report.result.runs:
        text = _answers_of(run, width, terminal)
        if several or len(report.result.runs) > 1:
            text = f"==> {title(run, report, several)} <==\n{text}"
        tables.append(text)
    return "\n".join(tables)


def _answers_of(run: RunResult, width: int, terminal: bool) -> str:
    scored = any(item.answer is not None for item in run.items)
    head = ["item", "output", "input"]
    if scored:
        head[1:1] = ["correct", "answer"]
    rows = []
    for item in run.items:
        row = [str(item.index + 1)]
        if scored:
            row.append(NONE if item.correct is None else f"{item.correct:.3g}")
            row.append(_flat(item.answer or NONE))
        rows.append([*row, _flat(item.output), _flat(item.input)])
    return render(head, rows, width, terminal, left=("answer", "output", "input"))


def title(run: RunResult, report: Report, several: bool) -> str:
    """The heading of a run's answers, with the name and the seed if there are several."""
    name, seed = "", None
    if several:
        name = report.name
    if len({other.seed for other in report.result.runs}) > 1:
        seed = run.seed
    return label(name, run.shots, seed)


def label(name: str, shots: int, seed: int | None, item: int | None = None) -> str:
    """The heading of one setting: `name, 4 shots, seed 1, item 3`."""
    parts = []
    if name:
        parts.append(name)
    parts.append(f"{shots} shot" + "s" * (shots != 1))
    if seed is not None:
        parts.append(f"seed {seed}")
    if item is not None:
        parts.append(f"item {item}")
    return ", ".join(parts)


def _flat(text: str) -> str:
    """A text on one line, without control characters."""
    return harmless(" ".join(text.split()))
