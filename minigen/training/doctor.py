"""Checks of what is about to be trained: each small, and each a fault that a loss curve hides for hours."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.backends.base import Tree
from minigen.errors import MinigenError
from minigen.files import workspace
from minigen.model import load
from minigen.training import checkpoint
from minigen.training.batch import Batch
from minigen.training.checkpoint import Position
from minigen.training.config import Config
from minigen.training.loop import checkpoint_of
from minigen.training.run_data import Progress
from minigen.training.setup import Setup, build
from minigen.training.trainer import Optimizer, Trainer

ROWS, TOKENS = 4, 64  # of the batches that the checks take, at most
FIT_STEPS, FIT_ROWS, FIT_SHARE = (
    600,
    2,
    0.25,
)  # to overfit: steps at most, rows, and how far down the loss must get
TAUGHT = 10_000  # tokens that a teacher writes, at most
# Differences that rounding may make: of losses and logits, relative to their size.
ROUNDING = {"float32": 1e-4, "bfloat16": 3e-2}


@dataclass(frozen=True)
class Check:
    name: str
    passed: bool
    found: str


def examine(config: Config, progress: Progress = lambda what, done, total: None) -> Iterator[Check]:
    """Makes everything that a run of these settings needs, in a folder that goes again, and checks it. Of a teacher's
    text a little is enough.

    Raises MinigenError where that cannot be made.
    """
    config = config.replace(teacher_tokens=min(config.teacher.tokens, TAUGHT))
    with workspace(Path(tempfile.gettempdir(), "minigen-doctor")) as folder:
        folder.chmod(0o700)
        yield from checks(build(config, folder, progress), folder)


def checks(setup: Setup, folder: Path) -> Iterator[Check]:
    """Each in turn; `folder` is one to write to."""
    exam = Examination(setup, folder)
    all_of: dict[str, Callable[[], tuple[bool, str]]] = {
        "the first loss": exam.first_loss,
        "nothing sees the future": exam.future,
        "the past counts": exam.past,
        "no gradient from the future": exam.gradient,
        "accumulation": exam.accumulation,
        "resume": exam.resume,
        "the saved model": exam.saved,
        "overfits one batch": exam.overfit,
    }
    for name, check in all_of.items():
        try:
            passed, found = check()
        except MinigenError as error:
            passed, found = False, str(error)
        yield Check(name, passed, found)


class Examination:
    def __init__(self, setup: Setup, folder: Path) -> None:
        self.setup, self.folder = setup, folder
        self.params = setup.initial()
        self.rounding = ROUNDING[setup.ops.dtype]
        self.exact = setup.ops.device == "cpu" or setup.config.run.deterministic
        batches = setup.batches
        rows, T = min(ROWS, batches.batch_size), min(TOKENS, batches.context)
        self.batches = [cut(batches.batch(step), rows, T) for step in range(4)]
        if any(
            not batch.weights.any() for batch in self.batches
        ):  # the answer of a chat may come later
            self.batches = [
                replace(batch, weights=np.ones_like(batch.weights)) for batch in self.batches
            ]
        self.half = max(T // 2, 1)

    def trainer(self, **settings: float) -> Trainer:
        """With the run's optimizer, but without dropout, which would make two ways differ that should not."""
        return self.setup.trainer(self.params, dropout=settings.get("dropout", 0.0), compile=False)

    @property
    def lr(self) -> float:
        return self.setup.config.schedule.lr

    def first_loss(self) -> tuple[bool, str]:
        guess = math.log(self.setup.architecture.vocab_size)
        trainer = self.trainer()
        loss = float(np.mean([trainer.losses(batch).mean() for batch in self.batches]))
        if self.setup.config.model.from_model:
            return (
                loss < guess,
                f"{loss:.3f} nats a token; guessing has {guess:.3f}, and a trained model less",
            )
        return abs(
            loss - guess
        ) < 0.1 * guess + 0.1, f"{loss:.3f} nats a token; guessing, ln V, has {guess:.3f}"

    def changed(self) -> tuple[Batch, Batch]:
        """A batch, and one with other tokens from the middle on."""
        one = self.batches[0]
        ids = one.ids.copy()
        V = self.setup.architecture.vocab_size
        ids[:, self.half :] = (
            ids[:, self.half :] + 1 + np.arange(ids.shape[1] - self.half) % max(V - 1, 1)
        ) % V
        return one, replace(one, ids=ids)

    def logits(self, ids: npt.NDArray[np.int64], weights: Tree = None) -> npt.NDArray[np.float32]:
        """By these weights, or those that the run begins with."""
        s = self.setup
        params = s.params(self.params if weights is None else weights)
        return np.asarray(
            s.ops.numpy(s.architecture.forward(s.ops, params, s.ops.asarray(ids))), np.float32
        )

    def moves(self) -> tuple[float, float]:
        """How far logits move when tokens from the middle on are others: those before it, and those from it on."""
        one, other = self.changed()
        before, after = self.logits(one.ids), self.logits(other.ids)
        moved = np.abs(before - after).max((0, 2)) / max(float(np.abs(before).max()), 1e-6)
        return float(moved[: self.half].max()), float(moved[self.half :].max())

    def future(self) -> tuple[bool, str]:
        earlier, _ = self.moves()
        return (
            earlier < self.rounding,
            f"later tokens move the logits before them by {earlier:.1e} of their size",
        )

    def past(self) -> tuple[bool, str]:
        """A change of the first token must be seen at the last: else it is no model of text, only of pairs."""
        ids = self.batches[0].ids
        other = ids.copy()
        other[:, 0] = (other[:, 0] + 1) % self.setup.architecture.vocab_size
        before = self.logits(ids)
        place = min(4, ids.shape[1] - 1)
        moved = float(np.abs(before - self.logits(other))[:, place].max()) / max(
            float(np.abs(before).max()), 1e-6
        )
        return (
            moved > 0,
            f"the first token moves the logits {place} tokens on by {moved:.1e} of their size",
        )

    def gradient(self) -> tuple[bool, str]:
        one, other = self.changed()
        weights = np.zeros_like(one.weights)
        weights[:, : self.half] = 1
        steps = [
            self.trainer().step([replace(batch, weights=weights)], self.lr, 0)
            for batch in (one, other)
        ]
        apart = abs(steps[0].grad_norm - steps[1].grad_norm) / max(steps[0].grad_norm, 1e-12)
        return (
            apart < self.rounding,
            f"later tokens change the gradient of earlier losses by {apart:.1e} of it",
        )

    def accumulation(self) -> tuple[bool, str]:
        """Two batches as one of both, with some tokens left out so that they do not weigh the same."""
        first, second = self.batches[0], self.batches[1]
        first = replace(
            first, weights=first.weights * (np.arange(first.weights.shape[1]) >= self.half)
        )
        if not first.weights.any():
            first = self.batches[0]
        both = Batch(
            *(
                np.concatenate([getattr(b, f) for b in (first, second)])
                for f in ("ids", "targets", "weights")
            )
        )
        parts, whole = (
            self.trainer().step([first, second], self.lr, 0),
            self.trainer().step([both], self.lr, 0),
        )
        pairs = ((parts.loss, whole.loss), (parts.grad_norm, whole.grad_norm))
        apart = max(abs(a - b) / max(b, 1e-12) for a, b in pairs)
        return (
            apart < self.rounding,
            f"two batches and one of both differ by {apart:.1e} in loss and gradient",
        )

    def resume(self) -> tuple[bool, str]:
        """Through a checkpoint on the disk, with dropout where the run has it."""
        dropout = self.setup.config.model.dropout
        straight, first = self.trainer(dropout=dropout), self.trainer(dropout=dropout)
        wanted = [straight.step([self.batches[n]], self.lr, n).loss for n in range(4)]
        found = [first.step([self.batches[n]], self.lr, n).loss for n in range(2)]
        place = checkpoint_of(self.setup, first, self.folder, Position(2))
        second = self.trainer(dropout=dropout)
        second.restore(checkpoint.read_state(place))
        found += [second.step([self.batches[n]], self.lr, n).loss for n in range(2, 4)]
        apart = max(abs(a - b) for a, b in zip(wanted, found, strict=True))
        bound = 0.0 if self.exact else self.rounding
        return (
            apart <= bound,
            f"4 steps, and 2 + 2 through a checkpoint, differ by {apart:.1e} in their losses",
        )

    def saved(self) -> tuple[bool, str]:
        """What `generate` opens is what was trained."""
        trainer = self.trainer()
        trainer.step(
            [self.batches[0]], self.lr, 0
        )  # an adapter that adds nothing yet would pass unseen
        place = checkpoint_of(self.setup, trainer, self.folder, Position(0))
        ids = self.batches[0].ids[:1]
        mine = self.logits(ids, trainer.weights(averaged=True))
        model = load(place, self.setup.ops.name, self.setup.ops.device, self.setup.ops.dtype)
        apart = float(np.abs(model.logits(ids) - mine).max()) / max(float(np.abs(mine).max()), 1e-6)
        low = self.setup.config.run.save_dtype == "bfloat16"
        bound = ROUNDING["bfloat16"] if low else self.rounding
        return apart < bound, f"its logits differ by {apart:.1e} of their size"

    def overfit(self) -> tuple[bool, str]:
        batch = cut(self.batches[0], FIT_ROWS, self.batches[0].ids.shape[1])
        batch = replace(batch, weights=np.ones_like(batch.weights))
        rate = max(self.lr, 1e-3)
        plain: dict[str, Any] = {
            "dropout": 0.0,
            "compile": False,
            "teacher": None,
        }  # whose loss has no floor
        trainer = self.setup.trainer(self.params, optimizer=Optimizer(weight_decay=0.0), **plain)
        first = loss = trainer.step([batch], rate / 10, 0).loss
        step = 1
        while loss > FIT_SHARE * first and step < FIT_STEPS:
            loss = trainer.step([batch], rate * min(1.0, (step + 1) / 10), step).loss
            step += 1
        found = f"{first:.3f} to {loss:.3f} nats in {step} steps on {batch.ids.size} tokens"
        return loss <= FIT_SHARE * first, f"{found}, at a learning rate of {rate:g}"


def cut(batch: Batch, rows: int, tokens: int) -> Batch:
    return Batch(
        batch.ids[:rows, :tokens].copy(),
        batch.targets[:rows, :tokens].copy(),
        batch.weights[:rows, :tokens].copy(),
    )
