"""What `prompt` says about its runs: a table, the answers, JSON and CSV."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..display.tables import WIDE, natural_width, render, sizes_of
from ..display.terminal import harmless

if TYPE_CHECKING:
    from minigen.evaluation.fewshot.result import FileResult, ItemResult, RunResult
    from minigen.evaluation.fewshot.summary import ShotsSummary

NONE = "-"  # a value that there is not


@dataclass(frozen=True)
class Report:
    """One file's results with what a reader needs beside them."""

    result: FileResult
    name: str  # short, and no other file's
    metric: str


def names(paths: Sequence[Path]) -> list[str]:
    """Each file's name without its ending; the whole path where that is also another's."""
    short = [path.name.removesuffix(".prompt.toml") for path in paths]
    counts = Counter(short)
    return [name if counts[name] == 1 else str(path) for name, path in zip(short, paths, strict=True)]


# -- for programs --
def as_json(result: FileResult) -> dict[str, Any]:
    """One object a file."""
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
    first = ("input", "output", "answer", "choice_logprobs", "choice_tokens")
    values = asdict(item)
    if not item.prompt_logprobs:  # as a rule they are not asked for
        del values["prompt_logprobs"]
    return {name: values[name] for name in (*first, *(name for name in values if name not in first))}


def as_csv(report: Report, heading: bool) -> str:
    """A row a run."""
    from minigen.evaluation.fewshot.summary import summarize_run

    rows = []
    for run in report.result.runs:
        about = {"file": str(report.result.file), "model": report.result.model, "metric": report.metric}
        rows.append(about | asdict(summarize_run(run)))
    stream = StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    if heading:
        writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


# -- for people --
def table(reports: Sequence[Report], width: int = WIDE, terminal: bool = False) -> str:
    """A row for each number of shots of each file. No number is ever cut; a narrow terminal gets fewer columns."""
    shown, groups = _cells_of(reports)
    rows = [row for group in groups for row in group]
    if shown[0] != "file" or natural_width(shown, rows) <= width:
        gap = 2 if natural_width(shown, rows) <= width else 1
        return render(shown, rows, max(width, natural_width(shown, rows, gap)), terminal, ("file", "metric"), gap)
    # Too narrow for the names beside the numbers: they stand above them, and the columns line up all the same.
    used = [i for i, name in enumerate(shown) if name not in ("file", "metric")]
    for spare in ("", "seeds", "chance"):
        used = [i for i in used if shown[i] != spare]
        head, cells = [shown[i] for i in used], [[row[i] for i in used] for row in rows]
        gap = 2 if natural_width(head, cells) <= width else 1
        if natural_width(head, cells, gap) <= width:
            break
    parts: list[str] = []
    for report, group in zip(reports, groups, strict=True):
        metric = f" ({report.metric})" if "metric" in shown else ""
        parts.append(f"{chr(10) if parts else ''}{report.name}{metric}\n")
        own = [[row[i] for i in used] for row in group]
        wide = max(width, natural_width(head, cells, gap))
        parts.append(render(head, own, wide, terminal, (), gap, sizes_of(head, cells)))
    return "".join(parts)


def _cells_of(reports: Sequence[Report]) -> tuple[list[str], list[list[list[str]]]]:
    """The table's heading, and each file's rows; columns that would say nothing here are left out."""
    from minigen.evaluation.fewshot.summary import chance, summarize

    metrics = {report.metric for report in reports}
    columns = {"file": len(reports) > 1, "shots": True, "metric": len(metrics) > 1, "items": True}
    score = "score" if len(metrics) > 1 else metrics.pop()
    columns |= {score: True, "chance": False, "worst - best": False, "seeds": False, "ties": False, "unscored": False}
    groups = []
    for report in reports:
        summaries = summarize(report.result)
        level = chance([item for run in report.result.runs for item in run.items])
        columns["chance"] |= level is not None
        columns["worst - best"] |= any(summary.seeds > 1 for summary in summaries)
        columns["ties"] |= any(summary.ties for summary in summaries)
        columns["unscored"] |= any(summary.unscored for summary in summaries)
        group = []
        for number, summary in enumerate(summaries):
            cells = _cells(summary) | {"metric": report.metric, score: _score(summary), "chance": _fixed(level)}
            group.append(cells | {"file": report.name if number == 0 else ""})
        groups.append(group)
    columns["seeds"] = columns["worst - best"]
    shown = [name for name, used in columns.items() if used]
    return shown, [[[cells[name] for name in shown] for cells in group] for group in groups]


def _cells(summary: ShotsSummary) -> dict[str, str]:
    several = summary.seeds > 1 and summary.lowest is not None
    return {
        "shots": str(summary.shots),
        "items": str(summary.n),
        "worst - best": f"{_fixed(summary.lowest)} - {_fixed(summary.highest)}" if several else "",
        "seeds": str(summary.seeds) if several else "",
        "ties": str(summary.ties),
        "unscored": str(summary.unscored),
    }


def _score(summary: ShotsSummary) -> str:
    error = "" if summary.stderr is None else f" ± {summary.stderr:.3f}"
    return f"{_fixed(summary.accuracy)}{error}"


def _fixed(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


def footer(reports: Sequence[Report]) -> str:
    """The model and its work, all files together."""
    results = [report.result for report in reports]
    read, saved = sum(r.tokens_read for r in results), sum(r.tokens_saved for r in results)
    share = f" ({100 * saved / (read + saved):.1f} %)" if saved else ""
    seconds = sum(r.seconds for r in results)
    return f"{results[0].model}: {read:,} tokens read, {saved:,} saved{share}, {seconds:.1f} s\n"


def answers(report: Report, several: bool, width: int = WIDE, terminal: bool = False) -> str:
    """A line an item: its number, how right it is, what was answered and to what, on one line each."""
    parts: list[str] = []
    for run in report.result.runs:
        if several or len(report.result.runs) > 1:
            parts.append(f"{chr(10) if parts else ''}==> {title(report.name if several else '', run, report)} <==\n")
        known = any(item.answer is not None for item in run.items)
        head = ["item", *(["correct", "answer"] if known else []), "output", "input"]
        rows = []
        for item in run.items:
            judged = [NONE if item.correct is None else f"{item.correct:.3g}", _flat(item.answer or NONE)]
            rows.append([str(item.index + 1), *(judged if known else []), _flat(item.output), _flat(item.input)])
        parts.append(render(head, rows, width, terminal, left=("answer", "output", "input")))
    return "".join(parts)


def title(name: str, run: RunResult, report: Report) -> str:
    seeds = {other.seed for other in report.result.runs}
    return label(name, run.shots, run.seed if len(seeds) > 1 else None)


def label(name: str, shots: int, seed: int | None, item: int | None = None) -> str:
    """What a heading says of one setting: `name, 4 shots, seed 1, item 3`."""
    parts = [name, f"{shots} shot{'' if shots == 1 else 's'}"]
    parts += [f"{what} {value}" for what, value in (("seed", seed), ("item", item)) if value is not None]
    return ", ".join(part for part in parts if part)


def _flat(text: str) -> str:
    """A text on one line, without what a terminal would obey."""
    return harmless(" ".join(text.split()))
