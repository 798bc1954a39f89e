"""The reports of a run, and the interface of those who receive them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from minigen.training.evaluate import Evaluation
from minigen.training.setup import Setup


@dataclass(frozen=True)
class Report:
    """One step.

    `step` counts from 1; `loss` and `smoothed` are in nats per token, or with a teacher the value
    that is minimized.
    """

    step: int
    steps: int
    tokens: int
    epoch: float
    loss: float
    smoothed: float
    lr: float
    grad_norm: float  # before clipping
    tokens_per_s: float  # the median of the last steps
    mfu: float  # share of the measured speed of matrix products
    eta: float  # estimated seconds that are left


@dataclass(frozen=True)
class About:
    """A run at its beginning."""

    folder: Path
    setup: Setup
    parameters: int
    trained: int  # parameters that are trained: with LoRA, the adapter's
    start: int  # the step from which it continues
    peak: float  # floating-point operations per second

    def as_row(self, flops_per_token: float) -> dict[str, Any]:
        """The values for the log."""
        ops = self.setup.ops
        return {
            "step": self.start,
            "parameters": self.parameters,
            "trained": self.trained,
            "peak_flops": self.peak,
            "flops_per_token": flops_per_token,
            "backend": ops.name,
            "device": ops.device,
            "dtype": ops.dtype,
            "processes": self.setup.group.size,
            "train_tokens": self.setup.dataset.train.tokens,
            "valid_tokens": self.setup.dataset.valid.tokens,
            **self.setup.identity(),
        }


@dataclass(frozen=True)
class Outcome:
    """A run at its end."""

    step: int
    stopped: bool  # by a signal
    published: Path | None  # the checkpoint whose model is in the run's folder
    last: Evaluation | None
    seconds: float


class Reporter(Protocol):
    """Receives the progress of a run; all methods are called from the thread of the run."""

    def begin(self, about: About) -> None: ...

    def step(self, report: Report, due: bool) -> None:
        """After each step; `due`: the step is also in the log."""
        ...

    def evaluating(self, done: int, total: int) -> None: ...

    def evaluated(self, evaluation: Evaluation) -> None: ...

    def saved(self, folder: Path) -> None: ...

    def stopping(self) -> None:
        """A signal came; the current step is finished first."""
        ...
