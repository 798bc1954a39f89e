"""Measures in rounds: in each, every model runs every test, so that drift affects all alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from minigen.backends import machine
from minigen.backends.memory import gib
from minigen.benchmark.plan import Case
from minigen.benchmark.session import Subject, Timed, check_context
from minigen.benchmark.statistics import percentile, summarize
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
    """A model in its process, and what has been measured so far."""

    subject: Subject
    worker: Worker
    about: dict[str, Any]
    load_s: float | None = None
    memory: int = 0
    bandwidth: float = 0.0
    peak: float = 0.0

    def weights_bytes(self) -> int:
        packings = self.subject.packings_in_memory()
        return weights_bytes(self.subject.architecture(), packings, self.about["dtype"])

    def measure_limits(self) -> None:
        """Keeps the best measurement so far, as a limit is what the machine can do at best."""
        bandwidth, peak = self.worker.ask("limits")
        self.bandwidth = max(self.bandwidth, bandwidth)
        self.peak = max(self.peak, peak)


def measure(
    subjects: Sequence[Subject],
    cases: Sequence[Case],
    runs: int,
    progress: Progress,
    *,
    quiet: bool = False,
) -> tuple[dict[str, Any], list[Result]]:
    """Measures all models; returns (the machine, a result for each model and test that it takes).

    One run more than `runs` is made, of which the first is dropped. `quiet`: there is no warning of
    a busy machine, as after another call.

    Raises MinigenError, before anything is measured, for a test beyond a model's context, for
    models that do not fit into memory together, and for models that cannot be loaded.
    """
    check_context(subjects, cases)
    for subject in subjects:
        subject.packings()
    packages: list[str] = []
    samples: dict[tuple[int, Case], list[Timed]] = {}
    for i, subject in enumerate(subjects):
        packages += subject.packages()
        for case in cases:
            if subject.takes(case):
                samples[i, case] = []
    about = machine.describe(packages, quiet=quiet)
    with ExitStack() as stack:
        contestants: list[Contestant] = []
        for subject in subjects:
            worker = Worker(subject)
            stack.callback(worker.close)
            contestants.append(Contestant(subject, worker, worker.ask("begin")))
        check_fit(contestants)
        for contestant in contestants:
            contestant.load_s = contestant.worker.ask("load")
        done = 0
        total = (runs + 1) * len(samples)
        progress(done, total)
        for number in range(runs + 1):
            for case in cases:
                for i, contestant in enumerate(contestants):
                    if (i, case) not in samples:
                        continue
                    timed = contestant.worker.ask("run", case)
                    if number:
                        samples[i, case].append(timed)
                    done += 1
                    progress(done, total)
            if number == 0:  # by now everything that the tests need is allocated
                for contestant in contestants:
                    contestant.memory = contestant.worker.ask("memory")
                    contestant.measure_limits()
        for contestant in contestants:
            contestant.measure_limits()
    share_limits(contestants)
    gpus = [c.about["gpu"] for c in contestants if c.about["gpu"]]
    about["gpu"] = gpus[0] if gpus else None
    about["load_end"] = machine.load()
    results: list[Result] = []
    for (i, case), timed in samples.items():
        results.append(result(contestants[i], case, timed, about["cache_bytes"]))
    return about, results


def share_limits(contestants: Sequence[Contestant]) -> None:
    """Gives each model the best limits that any model has measured.

    Bandwidth is shared by models with the same device and threads, the speed of matrix products by
    those with the same device and dtype.
    """
    bandwidths: dict[Any, float] = {}
    peaks: dict[Any, float] = {}
    for c in contestants:
        memory_key = c.about["device"], c.about["threads"]
        products_key = c.about["device"], c.about["dtype"]
        bandwidths[memory_key] = max(c.bandwidth, bandwidths.get(memory_key, 0.0))
        peaks[products_key] = max(c.peak, peaks.get(products_key, 0.0))
    for c in contestants:
        c.bandwidth = bandwidths[c.about["device"], c.about["threads"]]
        c.peak = peaks[c.about["device"], c.about["dtype"]]


def check_fit(contestants: Sequence[Contestant]) -> None:
    """Raises MinigenError unless the weights of all models fit the device that they share."""
    devices: dict[str, list[Contestant]] = {}
    for contestant in contestants:
        devices.setdefault(contestant.about["device"], []).append(contestant)
    for device, sharing in devices.items():
        needed = sum(c.weights_bytes() for c in sharing)
        memory = min(c.about["total_memory"] for c in sharing)
        if needed > memory:
            raise MinigenError(
                f"the weights need {gib(needed)} together, but {device} has "
                f"{gib(memory)}: measure fewer models at a time, or smaller ones"
            )


def result(
    contestant: Contestant, case: Case, timed: Sequence[Timed], cache_bytes: int | None
) -> Result:
    """The result of a test; `cache_bytes` is the size of the CPU's largest cache, if known."""
    c = contestant
    architecture = c.subject.architecture()
    tokens = case.tokens * case.batch
    dtype = c.about["dtype"]
    costs = Costs.of(architecture, c.subject.packings_in_memory())
    in_cache = None
    if case.kind == "train":
        least = training_limit(architecture, case.tokens, case.batch, c.peak)
    else:
        least = limit(costs, case.passes(), case.batch, dtype, c.bandwidth, c.peak)
        if c.about["device"] == "cpu" and cache_bytes:
            in_cache = costs.used * ITEMSIZE[dtype] + costs.codes <= cache_bytes
    rates: list[float] = []
    firsts: list[float] = []  # milliseconds
    steps: list[float] = []
    for t in timed:
        rates.append(tokens / t.seconds)
        steps += [1000 * step for step in t.steps_s]
        if t.first_token_s is not None:
            firsts.append(1000 * t.first_token_s)
    summary = summarize(rates)
    first_token = summarize(firsts).median if firsts else None
    half, most = None, None
    if steps:
        half, most = percentile(steps, 50), percentile(steps, 95)
    bytes_per_token = None if least.bytes_read is None else least.bytes_read / tokens
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
        first_token_ms=first_token,
        p50_ms=half,
        p95_ms=most,
        limit_tps=tokens / least.seconds,
        limit_by=least.by,
        share=summary.median * least.seconds / tokens,
        in_cache=in_cache,
        peak_memory_bytes=c.memory,
        load_s=c.load_s,
        bandwidth_bytes_per_s=c.bandwidth,
        peak_flops=c.peak,
        bytes_per_token=bytes_per_token,
        flops_per_token=least.flops / tokens,
        samples_tps=rates,
    )


def as_json(about: dict[str, Any], rows: Sequence[Any]) -> dict[str, Any]:
    """One object for the whole run; the rows are dataclasses."""
    return {"machine": about, "results": [asdict(row) for row in rows]}
