"""Small checks before training, for faults that a loss curve hides for hours."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from minigen.backends.base import Tree
from minigen.errors import MinigenError
from minigen.files import workspace
from minigen.model import load
from minigen.training import checkpoint
from minigen.training.batch import Batch
from minigen.training.config import Config
from minigen.training.position import Position
from minigen.training.run_data import Progress
from minigen.training.saving import checkpoint_of
from minigen.training.setup import Setup, build
from minigen.training.trainer import Optimizer, Trainer

ROWS, TOKENS = 4, 64  # of the batches of the checks, at most
FIT_STEPS, FIT_ROWS = 600, 2  # to overfit a batch: steps, at most, and rows
FIT_SHARE = 0.25  # the share of the first loss that must be reached then
TEACHER_TOKENS = 10_000  # tokens that a teacher writes, at most
# Relative differences of losses and logits that rounding may cause.
ROUNDING = {"float32": 1e-4, "bfloat16": 3e-2}


@dataclass(frozen=True)
class Check:
    """The result of a check."""

    name: str
    passed: bool
    found: str  # what was measured, or the error


def examine(config: Config, progress: Progress = lambda what, done, total: None) -> Iterator[Check]:
    """Prepares a run of these settings in a temporary folder, and checks it.

    A teacher writes only a little text. Raises MinigenError if the run cannot be prepared.
    """
    config = config.replace(teacher_tokens=min(config.teacher.tokens, TEACHER_TOKENS))
    with workspace(Path(tempfile.gettempdir(), "minigen-doctor")) as folder:
        folder.chmod(0o700)
        yield from checks(build(config, folder, progress), folder)


def checks(setup: Setup, folder: Path) -> Iterator[Check]:
    """The results of all checks, one by one; checkpoints are written to `folder`."""
    exam = Examination(setup, folder)
    checks_by_name: dict[str, Callable[[], tuple[bool, str]]] = {
        "the first loss": exam.first_loss,
        "nothing sees the future": exam.future,
        "the past counts": exam.past,
        "no gradient from the future": exam.gradient,
        "accumulation": exam.accumulation,
        "resume": exam.resume,
        "the saved model": exam.saved,
        "overfits one batch": exam.overfit,
    }
    for name, check in checks_by_name.items():
        try:
            passed, found = check()
        except MinigenError as error:
            passed, found = False, str(error)
        yield Check(name, passed, found)


class Examination:
    """The checks, each a method that returns (whether it passed, what was measured)."""

    def __init__(self, setup: Setup, folder: Path) -> None:
        self.setup = setup
        self.folder = folder
        self.params = setup.initial()
        self.rounding = ROUNDING[setup.ops.dtype]
        self.exact = setup.ops.device == "cpu" or setup.config.run.deterministic
        rows = min(ROWS, setup.batches.batch_size)
        T = min(TOKENS, setup.batches.context)
        self.batches = [cut(setup.batches.batch(step), rows, T) for step in range(4)]
        if any(not batch.weights.any() for batch in self.batches):  # a chat's answer may come later
            self.batches = [with_all_weights(batch) for batch in self.batches]
        self.half = max(T // 2, 1)

    def trainer(self, dropout: float = 0.0) -> Trainer:
        """A trainer with the run's optimizer.

        It has no dropout by default, which would make things differ that should be equal.
        """
        return self.setup.trainer(self.params, dropout=dropout, compile=False)

    @property
    def lr(self) -> float:
        return self.setup.config.schedule.lr

    def first_loss(self) -> tuple[bool, str]:
        guess = math.log(self.setup.architecture.vocab_size)
        trainer = self.trainer()
        loss = float(np.mean([trainer.losses(batch).mean() for batch in self.batches]))
        if self.setup.config.model.from_model:
            measured = f"{loss:.3f} nats per token; guessing has {guess:.3f}, a trained model less"
            return loss < guess, measured
        measured = f"{loss:.3f} nats per token; guessing, ln V, has {guess:.3f}"
        return abs(loss - guess) < 0.1 * guess + 0.1, measured

    def with_changed_end(self) -> tuple[Batch, Batch]:
        """A batch, and a copy with other tokens from the middle on."""
        batch = self.batches[0]
        ids = batch.ids.copy()
        V = self.setup.architecture.vocab_size
        shifts = 1 + np.arange(ids.shape[1] - self.half) % max(V - 1, 1)
        ids[:, self.half :] = (ids[:, self.half :] + shifts) % V
        return batch, replace(batch, ids=ids)

    def logits(self, ids: npt.NDArray[np.int64], weights: Tree = None) -> npt.NDArray[np.float32]:
        """Logits by these weights, or by those with which the run begins."""
        ops, architecture = self.setup.ops, self.setup.architecture
        params = self.setup.params(self.params if weights is None else weights)
        logits = architecture.forward(ops, params, ops.asarray(ids))
        return np.asarray(ops.numpy(logits), np.float32)

    def future(self) -> tuple[bool, str]:
        batch, changed = self.with_changed_end()
        logits = self.logits(batch.ids)
        difference = relative_difference(
            logits, self.logits(changed.ids), positions=slice(self.half)
        )
        measured = f"later tokens change the logits before them by {difference:.1e} of their size"
        return difference < self.rounding, measured

    def past(self) -> tuple[bool, str]:
        """The first token must have an effect on later logits, or the model sees only one token."""
        ids = self.batches[0].ids
        changed = ids.copy()
        changed[:, 0] = (changed[:, 0] + 1) % self.setup.architecture.vocab_size
        position = min(4, ids.shape[1] - 1)
        difference = relative_difference(
            self.logits(ids), self.logits(changed), positions=slice(position, position + 1)
        )
        return difference > 0, (
            f"the first token changes the logits {position} tokens later "
            f"by {difference:.1e} of their size"
        )

    def gradient(self) -> tuple[bool, str]:
        batch, changed = self.with_changed_end()
        weights = np.zeros_like(batch.weights)
        weights[:, : self.half] = 1
        norm = self.trainer().step([replace(batch, weights=weights)], self.lr, 0).grad_norm
        other = self.trainer().step([replace(changed, weights=weights)], self.lr, 0).grad_norm
        difference = abs(norm - other) / max(norm, 1e-12)
        measured = f"later tokens change the gradient of earlier losses by {difference:.1e} of it"
        return difference < self.rounding, measured

    def accumulation(self) -> tuple[bool, str]:
        """Two batches are like one of both, even if they have unequal weights."""
        first, second = self.batches[0], self.batches[1]
        in_second_half = np.arange(first.weights.shape[1]) >= self.half
        lighter = replace(first, weights=first.weights * in_second_half)
        if lighter.weights.any():
            first = lighter
        both = Batch(
            np.concatenate([first.ids, second.ids]),
            np.concatenate([first.targets, second.targets]),
            np.concatenate([first.weights, second.weights]),
        )
        parts = self.trainer().step([first, second], self.lr, 0)
        whole = self.trainer().step([both], self.lr, 0)
        loss_difference = abs(parts.loss - whole.loss) / max(whole.loss, 1e-12)
        norm_difference = abs(parts.grad_norm - whole.grad_norm) / max(whole.grad_norm, 1e-12)
        difference = max(loss_difference, norm_difference)
        return difference < self.rounding, (
            f"two batches and one of both differ by {difference:.1e} in loss and gradient"
        )

    def losses_of(self, trainer: Trainer, steps: range) -> list[float]:
        return [trainer.step([self.batches[n]], self.lr, n).loss for n in steps]

    def resume(self) -> tuple[bool, str]:
        """A run that is resumed from a checkpoint is like one without a break."""
        dropout = self.setup.config.model.dropout
        unbroken = self.losses_of(self.trainer(dropout), range(4))
        first = self.trainer(dropout)
        resumed = self.losses_of(first, range(2))
        folder = checkpoint_of(self.setup, first, self.folder, Position(2))
        second = self.trainer(dropout)
        second.restore(checkpoint.read_state(folder))
        resumed += self.losses_of(second, range(2, 4))
        difference = max(abs(a - b) for a, b in zip(unbroken, resumed, strict=True))
        bound = 0.0 if self.exact else self.rounding
        return difference <= bound, (
            f"4 steps, and 2 + 2 through a checkpoint, differ by {difference:.1e} in their losses"
        )

    def saved(self) -> tuple[bool, str]:
        """The model that is loaded from a checkpoint is the one that was trained."""
        trainer = self.trainer()
        trainer.step([self.batches[0]], self.lr, 0)  # before that an adapter has no effect
        folder = checkpoint_of(self.setup, trainer, self.folder, Position(0))
        ids = self.batches[0].ids[:1]
        trained = self.logits(ids, trainer.weights(averaged=True))
        ops = self.setup.ops
        model = load(folder, ops.name, ops.device, ops.dtype)
        difference = relative_difference(trained, model.logits(ids))
        bound = self.rounding
        if self.setup.config.run.save_dtype == "bfloat16":
            bound = ROUNDING["bfloat16"]
        return difference < bound, f"its logits differ by {difference:.1e} of their size"

    def overfit(self) -> tuple[bool, str]:
        batch = cut(self.batches[0], FIT_ROWS, self.batches[0].ids.shape[1])
        batch = with_all_weights(batch)
        rate = max(self.lr, 1e-3)
        trainer = self.setup.trainer(
            self.params,
            optimizer=Optimizer(weight_decay=0.0),
            dropout=0.0,
            compile=False,
            teacher=None,  # with one the loss could not become 0
        )
        first = loss = trainer.step([batch], rate / 10, 0).loss
        step = 1
        while loss > FIT_SHARE * first and step < FIT_STEPS:
            loss = trainer.step([batch], rate * min(1.0, (step + 1) / 10), step).loss
            step += 1
        return loss <= FIT_SHARE * first, (
            f"{first:.3f} to {loss:.3f} nats in {step} steps on {batch.ids.size} tokens, "
            f"at a learning rate of {rate:g}"
        )


def relative_difference(
    a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], positions: slice = slice(None)
) -> float:
    """The largest difference of logits (B, T, V) at these positions, relative to their size."""
    return float(np.abs(a - b)[:, positions].max()) / max(float(np.abs(a).max()), 1e-6)


def with_all_weights(batch: Batch) -> Batch:
    """The batch with a weight of 1 for every token."""
    return replace(batch, weights=np.ones_like(batch.weights))


def cut(batch: Batch, rows: int, tokens: int) -> Batch:
    """The first rows and tokens of a batch."""
    return Batch(
        batch.ids[:rows, :tokens].copy(),
        batch.targets[:rows, :tokens].copy(),
        batch.weights[:rows, :tokens].copy(),
    )
