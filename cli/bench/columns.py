"""The columns of `bench`'s tables, and what stands above and below them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .report import NONE, Columns, milliseconds, rate, seconds, size, spread

if TYPE_CHECKING:
    from minigen.benchmark.run import Result

CACHED, ABOVE = "*", "!"  # behind a share: see the notes


def result_columns(full: bool) -> Columns:
    """Of a Result; `full` has also what the lines above a table say once for each model."""
    names: Columns = {
        "model": lambda r: r.model,
        "backend": lambda r: r.backend,
        "dtype": lambda r: r.dtype,
        "quant": lambda r: r.quant or NONE,
    }
    about: Columns = {
        "params": lambda r: f"{r.parameters:,}",
        "weights": lambda r: size(r.weights_bytes),
        "threads": lambda r: threads(r.threads),
    }
    figures: Columns = {
        "test": lambda r: r.test,
        "tokens/s": lambda r: rate(r.median_tps),
        "mean ± sd": lambda r: spread(r.mean_tps, r.sd_tps),
        "first ms": lambda r: milliseconds(r.first_token_ms),
        "p50 ms": lambda r: milliseconds(r.p50_ms),
        "p95 ms": lambda r: milliseconds(r.p95_ms),
        "limit": lambda r: rate(r.limit_tps),
        "share": lambda r: f"{100 * r.share:.0f} %{mark(r)}",
    }
    rest: Columns = {
        "limit by": lambda r: r.limit_by,
        "peak memory": lambda r: size(r.peak_memory_bytes),
        "load s": lambda r: seconds(r.load_s),
    }
    return {**names, **about, **figures, **rest} if full else {**names, **figures}


def mark(r: Result) -> str:
    return CACHED if r.in_cache and r.limit_by == "memory" else ABOVE if r.share > 1 else ""


def threads(count: int | None) -> str:
    return NONE if count is None else str(count)


COLD: Columns = {
    "model": lambda r: r.model,
    "backend": lambda r: r.backend,
    "dtype": lambda r: r.dtype,
    "quant": lambda r: r.quant or NONE,
    "first token s": lambda r: seconds(r.median_s),
    "mean ± sd": lambda r: f"{seconds(r.mean_s)} ± {seconds(r.sd_s)}",
    "start": lambda r: seconds(r.start_s),
    "load": lambda r: seconds(r.load_s),
    "model's pass": lambda r: seconds(r.first_token_s),
}
COLD_NOTE = (
    "From the start of a process to its first token, in seconds. Load: the framework and the weights; start: Python, "
    "the command line and the tokenizer."
)
COMPARED: Columns = {
    "model": lambda r: r.model,
    "backend": lambda r: r.backend,
    "dtype": lambda r: r.dtype,
    "quant": lambda r: r.quant or NONE,
    "test": lambda r: r.test,
    "A": lambda r: rate(r.a_tps),
    "B": lambda r: rate(r.b_tps),
    "B / A": lambda r: f"{r.ratio:.3f}",
    "95 % interval": lambda r: NONE if r.low is None else f"{r.low:.3f} - {r.high:.3f}",
    "verdict": lambda r: r.verdict,
}
COMPARED_NOTE = (
    "Tokens/s of B as a multiple of A's, by Welch's interval on the runs of each. What changes from one start of the "
    "command to the next is not in it: measure twice before you believe a small difference."
)


def machine_lines(about: Mapping[str, Any]) -> list[str]:
    """The machine, the versions, and how busy it was."""
    gpu = f"{about['gpu']}; " if about["gpu"] else ""
    versions = ", ".join(f"{name} {text}" for name, text in about["versions"].items())
    return [
        f"{gpu}{about['cpu']}, {about['cores']} cores, {size(about['memory_bytes'])} memory, {about['system']}",
        f"{versions}; load average {about['load_start']:.2f} before, {about['load_end']:.2f} after",
    ]


def model_lines(results: Sequence[Result]) -> list[str]:
    """A line for each model on each backend: what it is, what it took, and what its machine can do."""
    lines = {}
    for r in results:
        on = f"{r.device}, {r.threads} thread{'s' * (r.threads != 1)}" if r.threads and r.device == "cpu" else r.device
        lines[r.model, r.backend, r.dtype, r.quant] = (
            f"{r.model}, {' '.join(filter(None, (r.backend, r.dtype, r.quant)))} ({on}): "
            f"{r.parameters:,} parameters, {size(r.weights_bytes)}; "
            f"{'random weights' if r.load_s is None else f'loaded in {r.load_s:.2f} s'}, "
            f"peak memory {size(r.peak_memory_bytes)}; limits {r.bandwidth_bytes_per_s / 1e9:,.3g} GB/s read, "
            f"{r.peak_flops / 1e9:,.4g} GFLOP/s"
        )
    return list(lines.values())


def result_notes(about: Mapping[str, Any], results: Sequence[Result]) -> list[str]:
    """What the marks behind the shares mean, where there are any."""
    marks, notes = {mark(r) for r in results}, []
    if CACHED in marks:
        notes.append(
            f"{CACHED} The weights fit the largest cache ({size(about['cache_bytes'])}): they need not come from "
            "memory each time, so its limit may be passed."
        )
    if ABOVE in marks:
        notes.append(
            f"{ABOVE} Above the limit that was measured: the machine was slower just then, or its square product is "
            "not its fastest."
        )
    return notes
