"""Loads one model on one backend, in this process, and times the code that `generate` runs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minigen.backends import get_backend, machine
from minigen.benchmark.plan import Case
from minigen.checkpoints.backend_packings import packings_on
from minigen.checkpoints.quantization import choose_packings
from minigen.errors import ContextError
from minigen.families import build_architecture
from minigen.generation.choosing import pick
from minigen.generation.loop import decode_rows
from minigen.generation.options import Options
from minigen.generation.reader import Runner
from minigen.generation.rows import Row, Timing
from minigen.model import load
from minigen.models.architecture import Architecture
from minigen.models.packing import Packings
from minigen.tree import flatten, unflatten

SEED = 0


@dataclass(frozen=True)
class Subject:
    """A model on a backend, and how it is loaded."""

    model: str  # its name in results
    config: Mapping[str, Any]  # config.json
    folder: Path | None  # None: random weights
    stored: str  # dtype of the checkpoint, in which a GPU computes if `dtype` is None
    backend: str
    device: str | None = None
    dtype: str | None = None
    quant: str | None = None  # the quantization with which it is loaded
    held: Packings = field(default_factory=dict)  # the quantized matrices of the checkpoint
    kv_bits: int | None = None  # bits per number of the cache
    threads: int | None = None  # of the CPU; None: torch's default

    def packings(self) -> Packings:
        """How its matrices are quantized. Raises UsageError as `choose_packings`."""
        return choose_packings(self.quant, self.architecture(), self.held, self.model)

    def packings_in_memory(self) -> Packings:
        """How its matrices are quantized in memory, where a backend may need more bits."""
        return packings_on(self.backend, self.packings())

    def architecture(self) -> Architecture:
        where = f"the shape {self.model}"
        if self.folder is not None:
            where = str(self.folder / "config.json")
        return build_architecture(self.config, where).with_kv_bits(self.kv_bits)

    def session(self) -> Any:
        """A new session that measures it, with the methods of Session."""
        return Session(self)

    def takes(self, case: Case) -> bool:
        """Whether it can run this test."""
        return True

    def packages(self) -> Sequence[str]:
        """The names of the packages on which it runs, as pip knows them."""
        return (self.backend,)


@dataclass(frozen=True)
class Timed:
    """Seconds of one run: in total, until the first token ("pp"), and of each token ("tg")."""

    seconds: float
    first_token_s: float | None = None
    steps_s: list[float] = field(default_factory=list)


class Session:
    """A measurement, whose steps are the methods in this order."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.options = Options.of(temperature=0)

    def begin(self) -> dict[str, Any]:
        """Imports the framework; returns device, dtype, threads, gpu, and total_memory in bytes."""
        s = self.subject
        self.ops = get_backend(s.backend, s.device, s.dtype, stored=s.stored, threads=s.threads)
        return {
            "device": self.ops.device,
            "dtype": self.ops.dtype,
            "threads": self.ops.threads(),
            "gpu": self.ops.device_name(),
            "total_memory": self.ops.total_memory(),
        }

    def load(self) -> float | None:
        """Loads the weights; returns the seconds that took, or None for random weights."""
        s = self.subject
        if s.folder is None:
            self.runner = random_runner(s, self.ops)
            return None
        began = time.perf_counter()
        model = load(
            s.folder,
            s.backend,
            s.device,
            s.dtype,
            quant=s.quant,
            kv_bits=s.kv_bits,
            threads=s.threads,
        )
        self.runner = model.runner
        return time.perf_counter() - began

    def wait(self) -> None:
        """Waits until everything is compiled, which the first run may have begun."""
        self.ops.prepare()

    def run(self, case: Case) -> Timed:
        """Runs a test once. Prompts are random ids, the same each time; decoding is greedy."""
        self.wait()
        capacity = case.before + case.tokens
        vocabulary = self.runner.architecture.vocab_size
        ids = np.random.default_rng(SEED).integers(0, vocabulary, (case.batch, capacity))
        rows: list[Row] = []
        for row_ids in ids.tolist():
            rows.append(Row(row_ids[: case.before], limit=case.tokens + 1))
        self.rows = rows
        if case.kind == "pp" and case.before == 0:
            prompts = ids.tolist()
            began = time.perf_counter()
            logits, _ = self.runner.prefill(prompts, capacity)
            return self.first(began, logits, rows)
        logits, state = self.runner.prefill([row.prompt for row in rows], capacity)
        self.ops.sync(logits)
        if case.kind == "pp":
            began = time.perf_counter()
            return self.first(began, self.runner.read(ids[:, case.before :], state), rows)
        loop = self.loop(logits, state, rows)
        next(loop)  # the first tokens are chosen from the logits of the prompts
        steps: list[float] = []
        for _ in range(case.tokens):
            began = time.perf_counter()
            next(loop)
            steps.append(time.perf_counter() - began)
        return Timed(sum(steps), steps_s=steps)

    def first(self, began: float, logits: Any, rows: list[Row]) -> Timed:
        """The times of a pass: until its logits are computed, and until a token is chosen."""
        self.ops.sync(logits)
        seconds = time.perf_counter() - began
        self.choose(logits, rows)
        return Timed(seconds, time.perf_counter() - began)

    def choose(self, logits: Any, rows: list[Row]) -> None:
        for row, token in pick(self.ops, logits, rows, self.options):
            row.add(token)

    def loop(self, logits: Any, state: Any, rows: list[Row]) -> Iterator[Any]:
        """Adds a token to each row in each iteration, at first from these logits."""
        began = time.perf_counter()
        return decode_rows(self.runner, rows, logits, state, self.options, (), Timing(), began)

    def memory(self) -> int:
        """Peak memory so far in bytes: of this process on a CPU, of its allocations on a GPU."""
        return self.ops.memory()

    def limits(self) -> tuple[float, float]:
        """(bytes, operations) per second of memory and of matrix products, measured now."""
        peak = machine.measure_peak(self.ops)
        if not self.ops.accelerated:
            peak = max(peak, machine.measure_numpy_peak())
        return machine.measure_bandwidth(self.ops), peak


def random_runner(subject: Subject, ops: Any) -> Runner:
    """The model with weights as at the start of training.

    They are put on the device one by one, to save memory.
    """
    architecture = subject.architecture()
    packings = subject.packings()
    rng = np.random.default_rng(SEED)
    weights: dict[str, Any] = {}
    for path, param in flatten(architecture.shapes()).items():
        weight = ops.asarray(param.draw(rng))
        if path in packings:
            weight = ops.quantize(weight, packings[path].bits, packings[path].group)
        ops.sync(weight)
        weights[path] = weight
    return Runner(ops, architecture, unflatten(weights))


def check_context(subjects: Iterable[Subject], cases: Iterable[Case]) -> None:
    """Raises ContextError for a test that exceeds a model's context."""
    for subject in subjects:
        context = subject.architecture().context
        for case in cases:
            if context is not None and case.before + case.tokens > context:
                raise ContextError(
                    f"{case.name} needs {case.before + case.tokens} tokens, but the context of "
                    f"{subject.model} is {context}: lower -p, -n or -d"
                )
