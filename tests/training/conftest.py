"""A run in miniature: text, settings that take a second, and no time spent on measuring the machine."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minigen.backends import machine
from minigen.training.evaluate import Evaluation
from minigen.training.loop import Loop
from minigen.training.position import Position
from minigen.training.reports import About, Outcome, Report
from minigen.training.run import begin, make_config, resume
from minigen.training.setup import Setup

TEXT = "".join(f"The {animal} sat on the {place}; it was {i} o'clock.\n" for i in range(1, 13)
               for animal, place in (("cat", "mat"), ("dog", "log"), ("frog", "bog")))  # fmt: skip
SMALL: dict[str, Any] = {
    "tokenizer": "char", "layers": 2, "heads": 2, "width": 16, "context": 16, "batch": 4, "steps": 8, "eval_every": 4,
    "warmup": 2, "lr": 1e-2, "valid": 0.1, "log_every": 1, "sample_tokens": 8,
}  # fmt: skip


class Watcher:
    """A reporter that remembers. `at` is called after each step with its number."""

    def __init__(self, at: Callable[[int], None] = lambda step: None) -> None:
        self.about: About | None = None
        self.steps: list[Report] = []
        self.evaluations: list[Evaluation] = []
        self.folders: list[Path] = []
        self.stops, self.at = 0, at

    def begin(self, about: About) -> None:
        self.about = about

    def step(self, report: Report, due: bool) -> None:
        self.steps.append(report)
        self.at(report.step)

    def evaluating(self, done: int, total: int) -> None:
        assert 0 < done <= total

    def evaluated(self, evaluation: Evaluation) -> None:
        self.evaluations.append(evaluation)

    def saved(self, folder: Path) -> None:
        self.folders.append(folder)

    def stopping(self) -> None:
        self.stops += 1


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "measure_peak", lambda ops: 1e9)
    monkeypatch.setenv("MINIGEN_DATA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "animals.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def small(text: Path, backend: str, device: str) -> Callable[..., Any]:
    """small(layers=3, ...): settings of a tiny run on each backend in turn."""

    def make(**changes: Any) -> Any:
        return make_config(
            {**SMALL, "data": [str(text)], "backend": backend, "device": device, **changes}
        )

    return make


@pytest.fixture
def new(small: Callable[..., Any], tmp_path: Path) -> Callable[..., Setup]:
    """new("run", steps=9, ...): a run that has begun, in that folder."""
    return lambda name="run", **changes: begin(small(**changes), tmp_path / name)


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., tuple[Outcome, Watcher]]:
    """train(setup, at): one process's share of a run."""

    def run(setup: Setup, at: Callable[[int], None] = lambda step: None,
            start: tuple[Path, Position] | None = None) -> tuple[Outcome, Watcher]:  # fmt: skip
        watcher = Watcher(at)
        return Loop(setup, setup.tokenizer_folder.parent, watcher, start).run(), watcher

    return run


@pytest.fixture
def go_on(train: Callable[..., tuple[Outcome, Watcher]]) -> Callable[..., tuple[Outcome, Watcher]]:
    """go_on(folder): the rest of a run that stopped."""

    def run(folder: Path, **given: Any) -> tuple[Outcome, Watcher]:
        setup, start = resume(folder, given)
        return train(setup, start=start)

    return run


@pytest.fixture
def quick_compiler(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch traces only: its C++ compiler takes half a minute. MLX needs one that is there."""
    if backend == "torch":
        torch = pytest.importorskip("torch")
        torch.compiler.reset()
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    elif shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("mlx compiles with a C++ compiler, and there is none")
