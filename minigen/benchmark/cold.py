"""Times `minigen generate` in a fresh process until its first token, as a user waits for it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from minigen.backends import machine
from minigen.backends.cpu.compiling import wait_until_idle
from minigen.benchmark.run import Progress
from minigen.benchmark.session import Subject
from minigen.benchmark.statistics import summarize
from minigen.errors import MinigenError, UsageError

PROMPT = "Once upon a time"


@dataclass(frozen=True)
class ColdResult:
    """Medians in seconds, from the start of the process until its first token is written.

    `load_s` is the import of the framework and the loading of the weights, `first_token_s` the
    model's first token, and `start_s` everything else: Python, the command line, the tokenizer.
    """

    model: str
    backend: str
    device: str
    dtype: str
    quant: str
    test: str
    median_s: float
    mean_s: float
    sd_s: float | None
    start_s: float
    load_s: float
    first_token_s: float
    samples_s: list[float]


class Start(NamedTuple):
    """One start: the seconds until the first token was written, and the command's own report."""

    seconds: float
    report: dict[str, Any]


def measure_cold(
    subjects: Sequence[Subject], runs: int, progress: Progress
) -> tuple[dict[str, Any], list[ColdResult]]:
    """Measures all models in turn; returns (the machine, a result for each model).

    The first start of each model is dropped, so that its files are in the system's cache.

    Raises UsageError for a named shape, which has no files, and MinigenError if a run fails.
    """
    for subject in subjects:
        if subject.folder is None:
            raise UsageError(f"{subject.model} has no files: --cold needs a model")
    about = machine.describe(subject.backend for subject in subjects)
    starts: list[list[Start]] = [[] for _ in subjects]
    total = (runs + 1) * len(subjects)
    done = 0
    progress(done, total)
    for number in range(runs + 1):
        for i, subject in enumerate(subjects):
            result = start(subject)
            if number == 0:
                wait_until_idle()
            else:
                starts[i].append(result)
            done += 1
            progress(done, total)
    about["load_end"] = machine.load()
    return about, [summarize_starts(s, own) for s, own in zip(subjects, starts, strict=True)]


def start(subject: Subject) -> Start:
    """Starts the command once. Raises MinigenError if it fails."""
    command = [
        sys.executable,
        "-m",
        "minigen",
        "generate",
        str(subject.folder),
        "--backend",
        subject.backend,
    ]
    command += ["-p", PROMPT, "-n", "1", "--temp", "0", "--ignore-eos", "--json"]
    flags = {
        "--device": subject.device,
        "--dtype": subject.dtype,
        "--quant": subject.quant,
        "--kv-bits": subject.kv_bits,
        "--threads": subject.threads,
    }
    for flag, value in flags.items():
        if value is not None:
            command += [flag, str(value)]
    began = time.perf_counter()
    with subprocess.Popen(
        command,
        text=True,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - began
        _, errors = process.communicate()
    if process.returncode or not line:
        reason = f"it ended with code {process.returncode}"
        if errors.strip():
            reason = errors.strip().splitlines()[-1].removeprefix("minigen: ")
        raise MinigenError(f"{subject.model} did not start: {reason}")
    return Start(seconds, json.loads(line))


def summarize_starts(subject: Subject, starts: Sequence[Start]) -> ColdResult:
    """The result of a model's starts."""
    totals: list[float] = []
    loads: list[float] = []
    first_tokens: list[float] = []
    rests: list[float] = []
    for seconds, report in starts:
        load, first_token = report["timing"]["load_s"], report["timing"]["first_token_s"]
        totals.append(seconds)
        loads.append(load)
        first_tokens.append(first_token)
        rests.append(seconds - load - first_token)
    summary = summarize(totals)
    report = starts[0].report
    return ColdResult(
        model=subject.model,
        backend=subject.backend,
        device=report["device"],
        dtype=report["dtype"],
        quant=f"{report['quant']} {report['kv']}".strip(),
        test="cold",
        median_s=summary.median,
        mean_s=summary.mean,
        sd_s=summary.sd,
        start_s=summarize(rests).median,
        load_s=summarize(loads).median,
        first_token_s=summarize(first_tokens).median,
        samples_s=totals,
    )
