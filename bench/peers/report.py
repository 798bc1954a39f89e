"""The report of a run: tokens per second and minigen's ratios for each shape, and a plot."""

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
    "Tokens per second of all rows together, the median of the runs. In brackets: how many times "
    "as fast as the peer minigen is, with torch (compared with mlx-lm: with MLX), by the geometric "
    "means; ~ if Welch's 95 % interval contains 1, or there are too few runs for an interval."
)


def as_markdown(
    about: Mapping[str, Any], results: Sequence[Result], skipped: Sequence[Skipped]
) -> str:
    lines = [
        "# minigen and its peers on a CPU",
        "",
        f"`{about['command']}`, {about['minutes']} minutes",
        "",
    ]
    lines += [f"- {line}" for line in machine_lines(about)]
    threads = f"{about['threads']} thread" + "s" * (about["threads"] != 1)
    lines += [f"- {threads} each; random weights", "", NOTE, ""]
    by_model: dict[str, list[Result]] = {}
    for result in results:
        by_model.setdefault(result.model, []).append(result)
    for model, own_results in by_model.items():
        lines += [f"## {model}", "", *table(own_results), ""]
    if skipped:
        lines += ["## Not measured", "", *reasons(skipped), ""]
    lines += ["What is compared, with which settings: [peers/README.md](../peers/README.md)."]
    return "\n".join(lines) + "\n"


def table(results: Sequence[Result]) -> list[str]:
    """The table of one shape: a row for each dtype and test, a column for each contestant."""
    found = {}
    tests: dict[tuple[str, str], None] = {}
    contestants: dict[str, None] = {}
    for result in results:
        found[result.dtype, result.test, result.backend] = result
        tests[result.dtype, result.test] = None
        contestants[result.backend] = None
    names = sorted(contestants, key=is_peer)  # minigen first, else in their order
    lines = [row("dtype", "test", [LABELS.get(name, name) for name in names])]
    lines.append("|---|---|" + "---:|" * len(names))
    for dtype, test in tests:
        cells = [cell(found, dtype, test, name) for name in names]
        lines.append(row(dtype, test, cells))
    return lines


def row(dtype: str, test: str, cells: Sequence[str]) -> str:
    return f"| {dtype} | {test} | {' | '.join(cells)} |"


def is_peer(name: str) -> bool:
    return name not in BACKENDS


def cell(found: Mapping[tuple[str, str, str], Result], dtype: str, test: str, name: str) -> str:
    """The speed of a contestant and, for a peer, how many times as fast minigen is."""
    result = found.get((dtype, test, name))
    if result is None:
        return "-"
    speed = rate(result.median_tps)
    own = found.get((dtype, test, OWN.get(name, "torch")))
    if own is None or not is_peer(name):
        return speed
    return f"{speed} ({times(own, result)})"


def times(own: Result, other: Result) -> str:
    """How many times as fast minigen is; ~ if the difference is not significant."""
    compared = ratio(other.samples_tps, own.samples_tps)
    mark = "" if compared.verdict in ("faster", "slower") else "~ "
    return f"{mark}{compared.ratio:.2f}x"


def reasons(skipped: Sequence[Skipped]) -> list[str]:
    """A line for each contestant and reason, with all shapes and dtypes that it is about."""
    subjects: dict[tuple[str, str], list[str]] = {}
    for skip in skipped:
        listed = subjects.setdefault((skip.backend, skip.reason), [])
        if skip.subject:
            listed.append(skip.subject)
    lines = []
    for (name, reason), listed in subjects.items():
        about = f" ({', '.join(listed)})" if listed else ""
        lines.append(f"- {name}{about}: {reason}")
    return lines


def draw(results: Sequence[Result], path: Path, about: Mapping[str, Any]) -> None:
    """Plot decoding of one row, if it was measured: a panel for each shape and dtype."""
    panels = []
    for result in results:
        if result.test.startswith("tg") and result.batch == 1:
            panels.append(as_panel(result))
    if not panels or find_spec("matplotlib") is None:
        return
    from minigen.benchmark.plot import plot

    plot(panels, path, f"{about['cpu']}, {about['threads']} threads")


def as_panel(result: Result) -> Result:
    """The result with the names that `plot` shows: the panel is the shape and dtype."""
    return replace(
        result,
        test=f"{result.model}, {result.dtype}",
        model=result.test,
        dtype="",
        backend=LABELS.get(result.backend, result.backend),
    )
