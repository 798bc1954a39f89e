"""One model under training: steps, losses, weights, and the state that a resume needs. The same on every backend."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.backends import get_training
from minigen.backends.base import Backend, Tree
from minigen.backends.faults import out_of_memory
from minigen.backends.group import ALONE, Group
from minigen.backends.training import Leaf, Optimizer, SoftTargets, TrainingSettings
from minigen.errors import MinigenError, SharedError, UsageError
from minigen.layers.param import Param
from minigen.models.architecture import Trainable
from minigen.training.batch import Batch
from minigen.training.config import checked
from minigen.tree import flatten, unflatten

__all__ = ["Batch", "Optimizer", "Step", "Trainer"]

OUTER = (
    "embedding",
    "positions",
    "head",
)  # at the ends of the model: their matrices are tables, not maps


@dataclass(frozen=True)
class Step:
    loss: float  # nats per weighted token, or with a teacher what is minimised instead; before the update
    grad_norm: float  # of all gradients together, before clipping


class Trainer:
    """Master weights, optimizer and average in float32; the model computes in `ops.dtype`: float32, or bfloat16.

    Each process of a `group` has one, and makes the same updates.

    Raises UsageError for an optimizer or a setting that there is not.
    """

    def __init__(
        self,
        ops: Backend,
        architecture: Trainable,
        params: Tree,
        optimizer: Optimizer,
        *,
        dropout: float = 0.0,
        seed: int = 0,
        compile: bool = False,  # noqa: A002  (the flag's name on the command line)
        group: Group = ALONE,
        teacher: SoftTargets | None = None,
        deterministic: bool = True,
    ) -> None:
        check(ops, optimizer, dropout)
        self.seed, self.group = seed, group
        shapes = flatten(architecture.shapes())
        flat = {path: np.asarray(x, np.float32) for path, x in flatten(params).items()}
        assert {path: x.shape for path, x in flat.items()} == {
            path: tuple(p.shape) for path, p in shapes.items()
        }
        leaves = [describe(path, param, optimizer.name == "muon") for path, param in shapes.items()]
        settings = TrainingSettings(optimizer, dropout, compile, teacher, deterministic)
        with self.advice():
            self.training = get_training(ops, architecture.forward, leaves, flat, settings)

    def step(self, batches: Sequence[Batch], lr: float, number: int) -> Step:
        """One update by the mean gradient of all batches, each weighted token counted alike.

        The processes of a group are given the same batches and compute those that fall to them in turn.

        Raises SharedError where the loss or a gradient is not finite, and MinigenError where memory is short or another
        process has ended; the weights are then what they were.
        """
        total = float(sum(batch.weights.sum(dtype=np.float64) for batch in batches))
        if total <= 0:
            raise SharedError(
                f"step {number} has no token to train on: every weight of its batches is 0"
            )
        rank, size = self.group.rank, self.group.size
        try:
            with self.advice():
                losses = [
                    self.training.add_gradients(
                        batch.ids, batch.targets, batch.weights, total, self.draw(number, micro)
                    )
                    for micro, batch in enumerate(batches)
                    if micro % size == rank
                ]
                loss = math.fsum(part() for part in losses)
                if size > 1:
                    self.training.all_reduce(self.group)
                norm = self.training.norm()
                # One norm for all: processes with other numbers of threads may round it otherwise.
                loss, norm = self.group.sum_numbers([loss, norm if rank == 0 else 0.0])
            if not (math.isfinite(loss) and math.isfinite(norm)):
                what = f"loss is {loss}" if not math.isfinite(loss) else f"gradient norm is {norm}"
                raise SharedError(
                    f"the {what} at step {number}: lower the learning rate, which is {lr:g} there"
                )
        except BaseException:  # Ctrl-C too: half a step's gradients must not reach the next
            self.training.discard()
            raise
        with self.advice():
            self.training.update(lr, norm)
        return Step(loss, norm)

    def losses(self, batch: Batch, *, averaged: bool = False) -> npt.NDArray[np.float32]:
        """(B, T) nats of every target, whatever its weight; without dropout. `averaged`: by the averaged weights."""
        with self.advice():
            return self.training.losses(batch.ids, batch.targets, averaged)

    def weights(self, *, averaged: bool = False) -> Tree:
        """A copy of the weights, in NumPy's float32; the average is the weights themselves where `ema` is 0."""
        return unflatten(self.training.weights(averaged))

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Everything that a resume needs beside the settings, by name. Of one backend: the other cannot restore it."""
        return self.training.state()

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Goes on from `state` of a trainer with the same settings: exactly, bit for bit, where `deterministic`.

        Raises MinigenError for the state of another model, optimizer or backend.
        """
        mine = self.training.state()
        optional = {
            name for name in state if name.startswith("optimizer.")
        }  # torch makes it at the first step
        wrong = [
            name
            for name in mine
            if not name.startswith("optimizer.")
            and (name not in state or state[name].shape != mine[name].shape)
        ]
        wrong += [name for name in state if name not in mine and name not in optional]
        if wrong:
            raise MinigenError(
                f"this training state is of other settings or another backend: {wrong[0]} does not fit"
            )
        self.training.restore(state)

    def draw(self, number: int, micro: int) -> int:
        """The seed of dropout for one batch of one step."""
        return int(np.random.SeedSequence([self.seed, number, micro]).generate_state(1)[0])

    @contextmanager
    def advice(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not out_of_memory(error):
                raise
            raise MinigenError(
                "out of memory in a training step: lower the batch size and accumulate over more batches, "
                "or lower the context"
            ) from error


def describe(path: str, param: Param, muon: bool) -> Leaf:
    matrix = len(param.shape) == 2
    rows: tuple[int, ...] = ()
    if muon and matrix and path.split(".")[0] not in OUTER:
        rows = param.parts or (param.shape[0] // param.stacked,) * param.stacked
    return Leaf(path, tuple(param.shape), decayed=matrix, muon=rows)


def check(ops: Backend, optimizer: Optimizer, dropout: float) -> None:
    """Raises UsageError for a dtype that there is no training in, and for a setting out of its range."""
    if ops.dtype == "float16":
        raise UsageError("float16 has too small a range to train in: choose float32 or bfloat16")
    checked("dropout", dropout)
    for field in dataclasses.fields(optimizer):
        checked(field.metadata["key"] or field.name, getattr(optimizer, field.name))
