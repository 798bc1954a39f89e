"""What a run says of itself, and to whom."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from minigen.training.evaluate import Evaluation
from minigen.training.setup import Setup


@dataclass(frozen=True)
class Report:
    """One step: `step` counts from 1, `smoothed` and `loss` in nats a token (with a teacher: what is minimised), `lr`
    and `grad_norm` of the step."""

    step: int
    steps: int
    tokens: int
    epoch: float
    loss: float
    smoothed: float
    lr: float
    grad_norm: float  # before clipping
    tokens_per_s: float  # the median of the last steps
    mfu: float  # a share of the matrix product's speed here
    eta: float  # seconds that are left, as it looks


@dataclass(frozen=True)
class About:
    """What is said when a run begins. `trained`: the parameters that are, of LoRA the adapter's. `peak`
    in operations a second."""

    folder: Path
    setup: Setup
    parameters: int
    trained: int
    start: int  # the step that it goes on from
    peak: float


@dataclass(frozen=True)
class Outcome:
    step: int
    stopped: bool  # by a signal
    published: Path | None  # the checkpoint whose model is in the run's folder
    last: Evaluation | None
    seconds: float


class Reporter(Protocol):
    """Who is told how a run goes; all methods are called from the thread of the run."""

    def begin(self, about: About) -> None: ...

    def step(self, report: Report, due: bool) -> None:
        """After each step; `due`: this one is in the log too."""
        ...

    def evaluating(self, done: int, total: int) -> None: ...

    def evaluated(self, evaluation: Evaluation) -> None: ...

    def saved(self, folder: Path) -> None: ...

    def stopping(self) -> None:
        """A signal came; the step under way is finished first."""
        ...
