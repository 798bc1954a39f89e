"""What a run says: for each shape a table of tokens a second and minigen's ratios, and one picture of decoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from minigen.benchmark.run import Result
from minigen.benchmark.statistics import ratio
from minigen.cli.bench.columns import machine_lines
from minigen.cli.bench.report import rate

from .subjects import BACKENDS, OWN, Skipped

LABELS = {"torch": "minigen, torch", "mlx": "minigen, MLX"}
NOTE = (
    "Tokens a second of all rows together, the median of the runs. In brackets, how many times as fast as the peer "
    "minigen is, with torch, or beside mlx-lm with MLX, by the geometric means; ~ where Welch's 95 % interval holds 1, "
    "or the runs are too few for one."
)


def as_markdown(about: Mapping[str, Any], results: Sequence[Result], skipped: Sequence[Skipped]) -> str:
    lines = ["# minigen and its peers on a CPU", "", f"`{about['command']}`, {about['minutes']} minutes", ""]
    lines += [f"- {line}" for line in machine_lines(about)]
    lines += [f"- {about['threads']} thread{'s' * (about['threads'] != 1)} each; random weights", "", NOTE, ""]
    for model in dict.fromkeys(r.model for r in results):
        lines += [f"## {model}", "", *table([r for r in results if r.model == model]), ""]
    if skipped:
        lines += ["## Not measured", "", *reasons(skipped), ""]
    lines += ["What is compared, and how each is set: [peers/README.md](../peers/README.md)."]
    return "\n".join(lines) + "\n"


def table(results: Sequence[Result]) -> list[str]:
    """Of one shape: a line a dtype and test, a column for each who was measured."""
    found = {(r.dtype, r.test, r.backend): r for r in results}
    names = dict.fromkeys(r.backend for r in results)
    names = [*(name for name in BACKENDS if name in names), *(name for name in names if name not in BACKENDS)]
    lines = [f"| dtype | test | {' | '.join(LABELS.get(name, name) for name in names)} |"]
    lines.append("|---|---|" + "---:|" * len(names))
    for dtype, test in dict.fromkeys((r.dtype, r.test) for r in results):
        cells = [cell(found, dtype, test, name) for name in names]
        lines.append(f"| {dtype} | {test} | {' | '.join(cells)} |")
    return lines


def cell(found: Mapping[tuple[str, str, str], Result], dtype: str, test: str, name: str) -> str:
    r = found.get((dtype, test, name))
    if r is None:
        return "-"
    own = None if name in BACKENDS else found.get((dtype, test, OWN.get(name, "torch")))
    return rate(r.median_tps) if own is None else f"{rate(r.median_tps)} ({times(own, r)})"


def times(own: Result, other: Result) -> str:
    """How many times as fast minigen is."""
    x = ratio(other.samples_tps, own.samples_tps)
    return f"{'' if x.verdict in ('faster', 'slower') else '~ '}{x.ratio:.2f}x"


def reasons(skipped: Sequence[Skipped]) -> list[str]:
    """A line for each reason, with all that it holds for."""
    where: dict[tuple[str, str], list[str]] = {}
    for s in skipped:
        place = " ".join(part for part in (s.model, s.dtype) if part)
        where.setdefault((s.backend, s.reason), []).extend([place] * bool(place))
    return [
        f"- {name}{f' ({chr(44).join(places)})' if places else ''}: {reason}".replace(",", ", ").replace(",  ", ", ")
        for (name, reason), places in where.items()
    ]


def draw(results: Sequence[Result], path: Path, about: Mapping[str, Any]) -> None:
    """Decoding of one row, where it was measured and matplotlib is there: a panel a shape and dtype, a bar for each."""
    decoded = [r for r in results if r.test.startswith("tg") and r.batch == 1]
    if not decoded or find_spec("matplotlib") is None:
        return
    from minigen.benchmark.plot import plot

    panels = [
        replace(r, test=f"{r.model}, {r.dtype}", model=r.test, dtype="", backend=LABELS.get(r.backend, r.backend))
        for r in decoded
    ]
    plot(panels, path, f"{about['cpu']}, {about['threads']} threads")
