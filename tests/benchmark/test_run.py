"""The rounds and what is made of them, with workers whose clocks say what the tests want; then with a real process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minigen.benchmark import run
from minigen.benchmark.cold import measure_cold
from minigen.benchmark.plan import Case, model_of, shape_of
from minigen.benchmark.session import Subject, Timed
from minigen.benchmark.worker import Worker
from minigen.errors import BackendError, ContextError, MinigenError, UsageError
from minigen.models.costs import Costs

GPT2 = [
    Subject(**shape_of("gpt2"), backend=backend, dtype="float32") for backend in ("torch", "mlx")
]


class Scripted:
    """A worker that writes down what it is asked, and runs twice as fast as the time before."""

    asked: list[tuple[str, Any]] = []  # noqa: RUF012
    total_memory = 2**40

    def __init__(self, subject: Subject) -> None:
        self.subject, self.seconds, self.limits, self.closed = subject, 8.0, 0, False

    def ask(self, what: str, *args: Any) -> Any:
        Scripted.asked.append((self.subject.backend, args[0].name if what == "run" else what))
        if what == "begin":
            about = {"device": "cpu", "dtype": "float32", "threads": 2, "gpu": None}
            return about | {"total_memory": self.total_memory}
        if what == "run":
            self.seconds /= 2
            steps = [self.seconds / args[0].tokens] * args[0].tokens
            return (
                Timed(self.seconds, None, steps)
                if args[0].kind == "tg"
                else Timed(self.seconds, self.seconds + 1)
            )
        self.limits += what == "limits"
        return {
            "load": 0.5,
            "memory": 12345,
            "limits": (1e9 * self.limits, 1e12 / max(1, self.limits)),
        }[what]

    def close(self) -> None:
        Scripted.asked.append((self.subject.backend, "close"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    monkeypatch.setattr(run, "Worker", Scripted)
    monkeypatch.setattr(
        run.machine,
        "describe",
        lambda names, quiet: {"cache_bytes": 2**25, "gpu": None, "load_end": None},
    )
    monkeypatch.setattr(Scripted, "asked", [])
    return Scripted.asked


def test_models_and_tests_take_turns(asked: list[tuple[str, Any]]) -> None:
    seen: list[tuple[int, int]] = []
    run.measure(
        GPT2, [Case("pp", 4), Case("tg", 2)], 2, lambda done, total: seen.append((done, total))
    )
    both = ("torch", "mlx")
    turn = [(name, test) for test in ("pp4", "tg2") for name in both]
    between = [(name, what) for name in both for what in ("memory", "limits")]
    start = [(name, "begin") for name in both] + [(name, "load") for name in both]
    ends = [(name, "limits") for name in both] + [(name, "close") for name in reversed(both)]
    assert asked == start + turn + between + turn * 2 + ends
    assert seen == [(i, 12) for i in range(13)]


@pytest.mark.usefixtures("asked")
def test_the_figures() -> None:
    about, results = run.measure(
        GPT2[:1], [Case("pp", 32, batch=2), Case("tg", 16)], 2, lambda done, total: None
    )
    assert about["load_end"] is not None
    read, decoded = results
    # Seconds: 4 and 2 in the first round, which is dropped, then 1 and 1/2, then 1/4 and 1/8.
    assert read.samples_tps == [64, 256]
    assert decoded.samples_tps == [32, 128]
    assert (read.test, read.median_tps, read.mean_tps, read.sd_tps) == (
        "pp32 b2",
        160,
        160,
        pytest.approx(135.76, 1e-4),
    )
    assert (read.first_token_ms, read.p50_ms, read.p95_ms) == (1625, None, None)
    assert (decoded.first_token_ms, decoded.p50_ms) == (
        None,
        pytest.approx(1000 * (1 / 32 + 1 / 128) / 2),
    )
    assert decoded.p95_ms == pytest.approx(1000 / 32)
    assert (read.parameters, read.weights_bytes, read.peak_memory_bytes) == (
        124_439_808,
        497_759_232,
        12345,
    )
    assert (read.threads, read.load_s, read.in_cache) == (2, 0.5, False)
    # Of two measurements of the limits the better one counts, for each of them.
    assert (read.bandwidth_bytes_per_s, read.peak_flops) == (2e9, 1e12)
    costs = Costs.of(GPT2[0].architecture())
    total = sum(costs.bytes_read(1 + i, 1, 1, "float32") for i in range(16))
    assert decoded.limit_by == "memory"
    assert decoded.limit_tps == pytest.approx(16 * 2e9 / total)
    assert decoded.share == pytest.approx(80 / decoded.limit_tps)
    assert decoded.bytes_per_token == total / 16
    assert read.bytes_per_token == costs.bytes_read(0, 32, 2, "float32") / 64
    assert read.flops_per_token == costs.flops(0, 32, 1) / 32


def test_one_machine_has_one_limit() -> None:
    def seen(
        device: str, threads: int, dtype: str, bandwidth: float, peak: float
    ) -> run.Contestant:
        about = {"device": device, "threads": threads, "dtype": dtype}
        return run.Contestant(GPT2[0], None, about, bandwidth=bandwidth, peak=peak)  # type: ignore[arg-type]

    models = [
        seen("cpu", 2, "float32", 5, 10), seen("cpu", 2, "bfloat16", 7, 40), seen("cpu", 1, "float32", 4, 11),
        seen("cuda", 2, "float32", 900, 1000),
    ]  # fmt: skip
    run.share_limits(models)
    assert [(c.bandwidth, c.peak) for c in models] == [(7, 11), (7, 40), (4, 11), (900, 1000)]


def test_refusals(asked: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ContextError, match="the context of gpt2 shape is 1024"):
        run.measure(GPT2, [Case("pp", 2), Case("pp", 1025)], 1, lambda done, total: None)
    assert asked == []  # before any process is started
    monkeypatch.setattr(Scripted, "total_memory", 2**29)
    with pytest.raises(
        MinigenError,
        match=r"^the weights need 0\.9 GiB together, but cpu has 0\.5 GiB: measure fewer",
    ):
        run.measure(GPT2, [Case("pp", 2)], 1, lambda done, total: None)
    assert [what for _, what in asked] == ["begin", "begin", "close", "close"]


def test_a_process_of_its_own(tiny: Callable[[str], Path], backend: str, device: str) -> None:
    worker = Worker(Subject(**model_of(str(tiny("llama"))), backend=backend, device=device))
    try:
        assert worker.ask("begin")["dtype"] == "float32"
        assert worker.ask("load") > 0
        assert len(worker.ask("run", Case("tg", 3)).steps_s) == 3
        worker.process.kill()
        with pytest.raises(
            MinigenError, match=rf"on {backend} was killed, probably because memory ran out$"
        ):
            worker.ask("memory")
    finally:
        worker.close()


def test_errors_come_back_from_the_process(tiny: Callable[[str], Path], backend: str) -> None:
    worker = Worker(Subject(**model_of(str(tiny("llama"))), backend=backend, device="nowhere"))
    try:
        with pytest.raises(BackendError, match="'nowhere'"):
            worker.ask("begin")
    finally:
        worker.close()


def test_cold_starts_need_files() -> None:
    with pytest.raises(UsageError, match=r"^gpt2 shape has no files: --cold needs a model$"):
        measure_cold(GPT2, 1, lambda done, total: None)
