"""The columns of `bench`'s tables, and the lines above and below them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .report import NONE, Columns, milliseconds, rate, seconds, size, spread

if TYPE_CHECKING:
    from minigen.benchmark.compare import Compared
    from minigen.benchmark.run import Result

CACHED, ABOVE = "*", "!"  # after a share: see `result_notes`


def _attribute(name: str, text: Any = str) -> Any:
    """A column that shows an attribute of the row through `text`."""

    def cell(row: Any) -> str:
        shown: str = text(getattr(row, name))
        return shown

    return cell


def _quant(row: Any) -> str:
    return row.quant or NONE


def _share(result: Result) -> str:
    return f"{100 * result.share:.0f} %{mark(result)}"


def _spread_of_rate(result: Result) -> str:
    return spread(result.mean_tps, result.sd_tps)


def _spread_of_seconds(row: Any) -> str:
    return f"{seconds(row.mean_s)} ± {seconds(row.sd_s)}"


def _interval(comparison: Compared) -> str:
    if comparison.low is None:
        return NONE
    return f"{comparison.low:.3f} - {comparison.high:.3f}"


def _thousands(number: int) -> str:
    return f"{number:,}"


def _three_digits(number: float) -> str:
    return f"{number:.3f}"


def threads(count: int | None) -> str:
    """A number of threads, or NONE."""
    return NONE if count is None else str(count)


def mark(result: Result) -> str:
    """What stands after a share that may be above 100 %."""
    if result.in_cache and result.limit_by == "memory":
        return CACHED
    if result.share > 1:
        return ABOVE
    return ""


# The columns that say which model a row is of.
SUBJECT: Columns = {
    "model": _attribute("model"),
    "backend": _attribute("backend"),
    "dtype": _attribute("dtype"),
    "quant": _quant,
}
# What the lines above a table say once per model.
MODEL_DETAILS: Columns = {
    "params": _attribute("parameters", _thousands),
    "weights": _attribute("weights_bytes", size),
    "threads": _attribute("threads", threads),
}
FIGURES: Columns = {
    "test": _attribute("test"),
    "tokens/s": _attribute("median_tps", rate),
    "mean ± sd": _spread_of_rate,
    "first ms": _attribute("first_token_ms", milliseconds),
    "p50 ms": _attribute("p50_ms", milliseconds),
    "p95 ms": _attribute("p95_ms", milliseconds),
    "limit": _attribute("limit_tps", rate),
    "share": _share,
}
RUN_DETAILS: Columns = {
    "limit by": _attribute("limit_by"),
    "peak memory": _attribute("peak_memory_bytes", size),
    "load s": _attribute("load_s", seconds),
}
COLD: Columns = {
    **SUBJECT,
    "first token s": _attribute("median_s", seconds),
    "mean ± sd": _spread_of_seconds,
    "start": _attribute("start_s", seconds),
    "load": _attribute("load_s", seconds),
    "model's pass": _attribute("first_token_s", seconds),
}
COLD_NOTE = (
    "Seconds from the start of a process to its first token. Load: the framework and the weights; "
    "start: Python, the command line and the tokenizer."
)
COMPARED: Columns = {
    **SUBJECT,
    "test": _attribute("test"),
    "A": _attribute("a_tps", rate),
    "B": _attribute("b_tps", rate),
    "B / A": _attribute("ratio", _three_digits),
    "95 % interval": _interval,
    "verdict": _attribute("verdict"),
}
COMPARED_NOTE = (
    "Tokens/s of B divided by those of A, with Welch's interval over the runs of each. It does not "
    "include what changes from one start of the command to the next: measure twice before you "
    "believe a small difference."
)


def result_columns(full: bool) -> Columns:
    """The columns of a Result; `full` adds what the lines above a table say once per model."""
    if full:
        return {**SUBJECT, **MODEL_DETAILS, **FIGURES, **RUN_DETAILS}
    return {**SUBJECT, **FIGURES}


def machine_lines(about: Mapping[str, Any]) -> list[str]:
    """The machine, the versions, and how busy it was."""
    gpu = f"{about['gpu']}; " if about["gpu"] else ""
    memory = f"{size(about['memory_bytes'])} memory"
    versions = ", ".join(f"{name} {text}" for name, text in about["versions"].items())
    load = f"load average {about['load_start']:.2f} before, {about['load_end']:.2f} after"
    return [
        f"{gpu}{about['cpu']}, {about['cores']} cores, {memory}, {about['system']}",
        f"{versions}; {load}",
    ]


def model_lines(results: Sequence[Result]) -> list[str]:
    """One line per model and backend: what it is, what it took, and what its machine can do."""
    lines = {}
    for result in results:
        subject = (result.model, result.backend, result.dtype, result.quant)
        lines[subject] = _model_line(result)
    return list(lines.values())


def _model_line(result: Result) -> str:
    device = result.device
    if result.threads and device == "cpu":
        device += f", {result.threads} thread" + "s" * (result.threads != 1)
    computed = f"{result.backend} {result.dtype}"
    if result.quant:
        computed += f" {result.quant}"
    weights = "random weights"
    if result.load_s is not None:
        weights = f"loaded in {result.load_s:.2f} s"
    return (
        f"{result.model}, {computed} ({device}): "
        f"{result.parameters:,} parameters, {size(result.weights_bytes)}; {weights}, "
        f"peak memory {size(result.peak_memory_bytes)}; "
        f"limits {result.bandwidth_bytes_per_s / 1e9:,.3g} GB/s read, "
        f"{result.peak_flops / 1e9:,.4g} GFLOP/s"
    )


def result_notes(about: Mapping[str, Any], results: Sequence[Result]) -> list[str]:
    """What the marks after the shares mean, if there are any."""
    marks = {mark(result) for result in results}
    notes = []
    if CACHED in marks:
        notes.append(
            f"{CACHED} The weights fit into the largest cache ({size(about['cache_bytes'])}). They "
            "need not be read from memory each time, so its limit can be exceeded."
        )
    if ABOVE in marks:
        notes.append(
            f"{ABOVE} Above the measured limit: the machine was slower while the limit was "
            "measured, or its square matrix product is not its fastest."
        )
    return notes
