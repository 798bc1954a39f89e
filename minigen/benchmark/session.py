"""One model on one backend, in this process: loaded, and timed through the code that `generate` runs."""

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
from minigen.layers.param import Param
from minigen.model import load
from minigen.models.architecture import Architecture
from minigen.models.packing import Packings
from minigen.tree import flatten, unflatten

SEED = 0


@dataclass(frozen=True)
class Subject:
    """A model on a backend: the weights of `folder`, or random ones where that is None.

    `stored` is the checkpoint's own dtype, which a GPU computes in where `dtype` is None; `held` are the matrices that
    it has quantized, and `quant` is what it is loaded with, `kv_bits` the bits of a number in its cache. `threads` of
    the CPU compute; None: as many as torch takes.
    """

    model: str
    config: Mapping[str, Any]
    folder: Path | None
    stored: str
    backend: str
    device: str | None = None
    dtype: str | None = None
    quant: str | None = None
    held: Packings = field(default_factory=dict)
    kv_bits: int | None = None
    threads: int | None = None

    def packings(self) -> Packings:
        """How its matrices are quantized. Raises UsageError as `choose_packings` does."""
        return choose_packings(self.quant, self.architecture(), self.held, self.model)

    def packings_in_memory(self) -> Packings:
        """The same as its backend holds them, which may be in more bits."""
        return packings_on(self.backend, self.packings())

    def architecture(self) -> Architecture:
        where = (
            f"the shape {self.model}" if self.folder is None else str(self.folder / "config.json")
        )
        return build_architecture(self.config, where).with_kv_bits(self.kv_bits)

    def session(self) -> Any:
        """What measures it, made in the process that does: it has the methods of Session."""
        return Session(self)

    def takes(self, case: Case) -> bool:
        """Whether it can be asked for this test."""
        return True

    def packages(self) -> Sequence[str]:
        """What pip calls that which it runs on."""
        return (self.backend,)


@dataclass(frozen=True)
class Timed:
    """Seconds of one run of a test: of the whole, of the first token ("pp"), and of each token of a row ("tg")."""

    seconds: float
    first_token_s: float | None = None
    steps_s: list[float] = field(default_factory=list)


class Session:
    """The steps of a measurement, in the order in which they stand here."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.options = subject, Options.of(temperature=0)

    def begin(self) -> dict[str, Any]:
        """Imports the framework. What it runs on: device, dtype, threads, gpu, total_memory in bytes."""
        s = self.subject
        self.ops = get_backend(s.backend, s.device, s.dtype, stored=s.stored, threads=s.threads)
        return {
            "device": self.ops.device, "dtype": self.ops.dtype, "threads": self.ops.threads(),
            "gpu": self.ops.device_name(), "total_memory": self.ops.total_memory(),
        }  # fmt: skip

    def load(self) -> float | None:
        """Seconds that reading the weights takes, the framework being there; None for random ones."""
        s = self.subject
        if s.folder is None:
            self.runner = random_runner(s, self.ops)
            return None
        began = time.perf_counter()
        settings: dict[str, Any] = {"quant": s.quant, "kv_bits": s.kv_bits, "threads": s.threads}
        self.runner = load(s.folder, s.backend, s.device, s.dtype, **settings).runner
        return time.perf_counter() - began

    def wait(self) -> None:
        """For what the first run, which is dropped, may have begun to compile."""
        self.ops.prepare()

    def run(self, case: Case) -> Timed:
        """Runs a test once. Its prompts are random ids, the same each time; it decodes what the model chooses."""
        self.wait()
        ops, vocabulary = self.ops, self.runner.architecture.vocab_size
        ids = np.random.default_rng(SEED).integers(
            0, vocabulary, (case.batch, case.before + case.tokens)
        )
        self.rows = rows = [
            Row([int(i) for i in row[: case.before]], limit=case.tokens + 1) for row in ids
        ]
        capacity = case.before + case.tokens
        if case.kind == "pp" and case.before == 0:
            prompts = ids.tolist()
            began = time.perf_counter()
            logits, _ = self.runner.prefill(prompts, capacity)
            return self.first(began, logits, rows)
        logits, state = self.runner.prefill([row.prompt for row in rows], capacity)
        ops.sync(logits)
        if case.kind == "pp":
            began = time.perf_counter()
            return self.first(began, self.runner.read(ids[:, case.before :], state), rows)
        loop = self.loop(logits, state, rows)
        next(loop)  # the first tokens come with the prompts
        steps = []
        for _ in range(case.tokens):
            began = time.perf_counter()
            next(loop)
            steps.append(time.perf_counter() - began)
        return Timed(sum(steps), steps_s=steps)

    def first(self, began: float, logits: Any, rows: list[Row]) -> Timed:
        """The times of a pass that has been asked for: until its logits are there, and until a token is chosen."""
        self.ops.sync(logits)
        seconds = time.perf_counter() - began
        self.choose(logits, rows)
        return Timed(seconds, time.perf_counter() - began)

    def choose(self, logits: Any, rows: list[Row]) -> None:
        for row, token in pick(self.ops, logits, rows, self.options):
            row.add(token)

    def loop(self, logits: Any, state: Any, rows: list[Row]) -> Iterator[Any]:
        """Gives each row a token each time, the first of them from these logits."""
        return decode_rows(
            self.runner, rows, logits, state, self.options, (), Timing(), time.perf_counter()
        )

    def memory(self) -> int:
        """Peak memory so far, in bytes: of this process on a CPU, of what it allocated on a GPU."""
        return self.ops.memory()

    def limits(self) -> tuple[float, float]:
        """(bytes, floating-point operations) a second that memory and matrix products reach now."""
        peaks = [machine.measure_peak(self.ops)] + [machine.measure_numpy_peak()] * (
            not self.ops.accelerated
        )
        return machine.measure_bandwidth(self.ops), max(peaks)


def random_runner(subject: Subject, ops: Any) -> Runner:
    """The model with weights as at the start of training, put on the device one by one to save memory."""
    architecture, rng, packings = (
        subject.architecture(),
        np.random.default_rng(SEED),
        subject.packings(),
    )

    def make(path: str, param: Param) -> Any:
        array, packing = ops.asarray(param.draw(rng)), packings.get(path)
        if packing is not None:
            array = ops.quantize(array, packing.bits, packing.group)
        ops.sync(array)
        return array

    params = unflatten(
        {path: make(path, param) for path, param in flatten(architecture.shapes()).items()}
    )
    return Runner(ops, architecture, params)


def check_context(subjects: Iterable[Subject], cases: Iterable[Case]) -> None:
    """Raises ContextError, naming the test, for one that goes beyond a model's context."""
    for subject in subjects:
        context = subject.architecture().context
        for case in cases:
            if context is not None and case.before + case.tokens > context:
                raise ContextError(
                    f"{case.name} takes {case.before + case.tokens} tokens, and the context of {subject.model} is "
                    f"{context}: ask for less of -p, -n or -d"
                )
