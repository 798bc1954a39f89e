"""The rounds: every model runs every test once before any runs one again, so that drift hits all alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from minigen.backends import machine
from minigen.backends.memory import gib
from minigen.benchmark.plan import Case
from minigen.benchmark.session import Subject, Timed, check_context
from minigen.benchmark.statistics import percentile, summarise
from minigen.benchmark.worker import Worker
from minigen.checkpoints.quantization import name_of
from minigen.errors import MinigenError
from minigen.models.architecture import kv_name
from minigen.models.costs import ITEMSIZE, Costs, limit, parameters, training_limit, weights_bytes

Progress = Callable[[int, int], None]  # (runs done, runs in all)


@dataclass(frozen=True)
class Result:
    """One test of one model, as it stands in the JSON. Rates are of all rows of a batch together.

    `quant` is "q8", "q4", "mixed", or "" for plain weights, and "kv8" or "kv4" beside where the cache is quantized.
    `peak_memory_bytes` is the peak of the process that runs all tests of this model, before its limits are measured;
    `load_s` is None for random weights. `limit_tps` is the rate of the shortest time that the machine could take, by
    `limit_by`: "memory" or "compute"; `share` is what the median has of it. A training step's is by its operations
    alone; its `p50_ms` and `p95_ms` are those of a step. `in_cache`: the weights fit the CPU's largest cache, so that
    memory is no limit; None where that is not known.
    """

    model: str
    parameters: int
    weights_bytes: int
    backend: str
    device: str
    dtype: str
    quant: str
    threads: int | None
    test: str
    tokens: int
    depth: int
    batch: int
    median_tps: float
    mean_tps: float
    sd_tps: float | None
    first_token_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    limit_tps: float
    limit_by: str
    share: float
    in_cache: bool | None
    peak_memory_bytes: int
    load_s: float | None
    bandwidth_bytes_per_s: float
    peak_flops: float
    bytes_per_token: float | None
    flops_per_token: float
    samples_tps: list[float]


@dataclass
class Contestant:
    """A model in its process, and what is known of it so far."""

    subject: Subject
    worker: Worker
    about: dict[str, Any]
    load_s: float | None = None
    memory: int = 0
    bandwidth: float = 0.0
    peak: float = 0.0

    def weights_bytes(self) -> int:
        return weights_bytes(
            self.subject.architecture(), self.subject.packings_in_memory(), self.about["dtype"]
        )

    def measure_limits(self) -> None:
        """The best that was seen counts: a limit is what the machine can do."""
        bandwidth, peak = self.worker.ask("limits")
        self.bandwidth, self.peak = max(self.bandwidth, bandwidth), max(self.peak, peak)


def measure(
    subjects: Sequence[Subject],
    cases: Sequence[Case],
    runs: int,
    progress: Progress,
    *,
    quiet: bool = False,
) -> tuple[dict[str, Any], list[Result]]:
    """The machine, and a result for each model and test that it takes.

    One more run than `runs` is made: the first is dropped. `quiet`: no warning of a busy machine, which it is after
    another call.

    Raises MinigenError, before anything is measured, for a test beyond a model's context, models that do not fit the
    memory together, and whatever keeps a model from loading.
    """
    check_context(subjects, cases)
    for subject in subjects:
        subject.packings()
    packages = [name for subject in subjects for name in subject.packages()]
    about = machine.describe(packages, quiet=quiet)
    samples: dict[tuple[int, Case], list[Timed]] = {
        (i, case): [] for i, subject in enumerate(subjects) for case in cases if subject.takes(case)
    }
    with ExitStack() as stack:
        contestants = []
        for subject in subjects:
            worker = Worker(subject)
            stack.callback(worker.close)
            contestants.append(Contestant(subject, worker, worker.ask("begin")))
        check_fit(contestants)
        for contestant in contestants:
            contestant.load_s = contestant.worker.ask("load")
        done = 0
        progress(done, (runs + 1) * len(samples))
        for number in range(runs + 1):
            for case in cases:
                for i, contestant in enumerate(contestants):
                    if (i, case) not in samples:
                        continue
                    timed = contestant.worker.ask("run", case)
                    if number:
                        samples[i, case].append(timed)
                    done += 1
                    progress(done, (runs + 1) * len(samples))
            if number == 0:  # all that these tests need has been allocated
                for contestant in contestants:
                    contestant.memory = contestant.worker.ask("memory")
                    contestant.measure_limits()
        for contestant in contestants:
            contestant.measure_limits()
    share_limits(contestants)
    about |= {"gpu": next((c.about["gpu"] for c in contestants if c.about["gpu"]), None)}
    about |= {"load_end": machine.load()}
    return about, [
        result(contestants[i], case, timed, about["cache_bytes"])
        for (i, case), timed in samples.items()
    ]


def share_limits(contestants: Sequence[Contestant]) -> None:
    """Gives all the best that any saw of what is the same for them: memory by the device and threads, products by the
    device and dtype."""
    bandwidths, peaks = dict[Any, float](), dict[Any, float]()
    keys = [
        ((c.about["device"], c.about["threads"]), (c.about["device"], c.about["dtype"]))
        for c in contestants
    ]
    for c, (path, kind) in zip(contestants, keys, strict=True):
        bandwidths[path] = max(c.bandwidth, bandwidths.get(path, 0.0))
        peaks[kind] = max(c.peak, peaks.get(kind, 0.0))
    for c, (path, kind) in zip(contestants, keys, strict=True):
        c.bandwidth, c.peak = bandwidths[path], peaks[kind]


def check_fit(contestants: Sequence[Contestant]) -> None:
    """Raises MinigenError unless the weights of all models fit the device that they share."""
    devices: dict[str, list[Contestant]] = {}
    for contestant in contestants:
        devices.setdefault(contestant.about["device"], []).append(contestant)
    for device, sharing in devices.items():
        wanted, memory = (
            sum(c.weights_bytes() for c in sharing),
            min(c.about["total_memory"] for c in sharing),
        )
        if wanted > memory:
            raise MinigenError(
                f"the weights take {gib(wanted)} together, and {device} has {gib(memory)}: "
                "measure fewer models at a time, or smaller ones"
            )


def result(contestant: Contestant, case: Case, timed: Sequence[Timed], cache: int | None) -> Result:
    c, architecture = contestant, contestant.subject.architecture()
    tokens, dtype = case.tokens * case.batch, c.about["dtype"]
    costs = Costs.of(architecture, c.subject.packings_in_memory())
    training = case.kind == "train"
    if training:
        least = training_limit(architecture, case.tokens, case.batch, c.peak)
    else:
        least = limit(costs, case.passes(), case.batch, dtype, c.bandwidth, c.peak)
    rates = [tokens / t.seconds for t in timed]
    summary = summarise(rates)
    firsts = [1000 * t.first_token_s for t in timed if t.first_token_s is not None]
    steps = [1000 * step for t in timed for step in t.steps_s]
    on_cpu = c.about["device"] == "cpu"
    return Result(
        model=c.subject.model,
        parameters=parameters(architecture),
        weights_bytes=c.weights_bytes(),
        backend=c.subject.backend,
        device=c.about["device"],
        dtype=dtype,
        quant=f"{name_of(c.subject.packings())} {kv_name(architecture)}".strip(),
        threads=c.about["threads"],
        test=case.name,
        tokens=case.tokens,
        depth=case.depth,
        batch=case.batch,
        median_tps=summary.median,
        mean_tps=summary.mean,
        sd_tps=summary.sd,
        first_token_ms=summarise(firsts).median if firsts else None,
        p50_ms=percentile(steps, 50) if steps else None,
        p95_ms=percentile(steps, 95) if steps else None,
        limit_tps=tokens / least.seconds,
        limit_by=least.by,
        share=summary.median * least.seconds / tokens,
        in_cache=costs.used * ITEMSIZE[dtype] + costs.codes <= cache
        if on_cpu and cache and not training
        else None,
        peak_memory_bytes=c.memory,
        load_s=c.load_s,
        bandwidth_bytes_per_s=c.bandwidth,
        peak_flops=c.peak,
        bytes_per_token=None if least.bytes_read is None else least.bytes_read / tokens,
        flops_per_token=least.flops / tokens,
        samples_tps=rates,
    )


def as_json(about: dict[str, Any], rows: Sequence[Any]) -> dict[str, Any]:
    """One object for the whole run, of dataclasses."""
    return {"machine": about, "results": [asdict(row) for row in rows]}
