"""From nothing to the first token: `minigen generate` in a fresh process, as a user waits for it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minigen.backends import machine
from minigen.backends.cpu.compiling import wait_until_idle
from minigen.benchmark.run import Progress
from minigen.benchmark.session import Subject
from minigen.benchmark.statistics import summarise
from minigen.errors import MinigenError, UsageError

PROMPT = "Once upon a time"


@dataclass(frozen=True)
class ColdResult:
    """Medians in seconds, from the start of the process until its first token has been written.

    `load_s` is the framework's import and the weights; `start_s` what is neither that nor the model's first token:
    Python, the command line, the tokenizer.
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


def measure_cold(
    subjects: Sequence[Subject], runs: int, progress: Progress
) -> tuple[dict[str, Any], list[ColdResult]]:
    """The machine, and a result for each model; the models take turns. The first start of each is dropped, so that the
    files are in the system's cache.

    Raises UsageError for a named shape, which has no folder to start from, and MinigenError where a run fails.
    """
    for subject in subjects:
        if subject.folder is None:
            raise UsageError(f"{subject.model} has no files to start from: --cold needs a model")
    about = machine.describe(subject.backend for subject in subjects)
    found: list[list[tuple[float, dict[str, Any]]]] = [[] for _ in subjects]
    progress(0, (runs + 1) * len(subjects))
    for number in range(runs + 1):
        for i, subject in enumerate(subjects):
            started = start(subject)
            if number:
                found[i].append(started)
            else:
                wait_until_idle()
            progress(number * len(subjects) + i + 1, (runs + 1) * len(subjects))
    about |= {"load_end": machine.load()}
    return about, [
        summarise_starts(subject, starts) for subject, starts in zip(subjects, found, strict=True)
    ]


def start(subject: Subject) -> tuple[float, dict[str, Any]]:
    """One run: the seconds until it has written its token, and what it says of itself."""
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
        command += [flag, str(value)] if value is not None else []
    began = time.perf_counter()
    pipes: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }
    with subprocess.Popen(command, text=True, encoding="utf-8", **pipes) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - began
        _, errors = process.communicate()
    if process.returncode or not line:
        said = (errors.strip().splitlines() or [f"it ended with code {process.returncode}"])[-1]
        raise MinigenError(f"{subject.model} did not start: {said.removeprefix('minigen: ')}")
    return seconds, json.loads(line)


def summarise_starts(
    subject: Subject, starts: Sequence[tuple[float, dict[str, Any]]]
) -> ColdResult:
    totals = [seconds for seconds, _ in starts]
    loads, firsts = (
        [said["timing"][name] for _, said in starts] for name in ("load_s", "first_token_s")
    )
    rests = [total - load - first for total, load, first in zip(totals, loads, firsts, strict=True)]
    summary, said = summarise(totals), starts[0][1]
    start_s, load_s, first_s = (summarise(part).median for part in (rests, loads, firsts))
    return ColdResult(
        subject.model, subject.backend, said["device"], said["dtype"], f"{said['quant']} {said['kv']}".strip(), "cold",
        summary.median, summary.mean, summary.sd, start_s, load_s, first_s, totals,
    )  # fmt: skip
