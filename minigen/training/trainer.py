"""Trains one model, on any backend: steps, losses, weights, and the state for a resume."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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

TABLES = ("embedding", "positions", "head")  # their matrices are tables of vectors, not maps


@dataclass(frozen=True)
class Step:
    """The result of a step."""

    loss: float  # before the update, in nats per weighted token; with a teacher, what is minimized
    grad_norm: float  # of all gradients together, before clipping


class Trainer:
    """A model in training.

    Master weights, optimizer and average are float32; the model computes in `ops.dtype`, float32 or
    bfloat16. Each process of a `group` has a trainer and makes the same updates.

    Raises UsageError for an unknown optimizer or a setting out of range.
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
        self.seed = seed
        self.group = group
        weights = {path: np.asarray(x, np.float32) for path, x in flatten(params).items()}
        leaves: list[Leaf] = []
        for path, param in flatten(architecture.shapes()).items():
            assert weights[path].shape == tuple(param.shape)
            leaves.append(describe(path, param, optimizer.name == "muon"))
        assert len(leaves) == len(weights)
        settings = TrainingSettings(optimizer, dropout, compile, teacher, deterministic)
        with advice_on_memory():
            self.gradients = get_training(ops, architecture.forward, leaves, weights, settings)

    def step(self, batches: Sequence[Batch], lr: float, number: int) -> Step:
        """One update by the mean gradient of all batches, in which all weighted tokens count alike.

        All processes of a group are given the same batches, and each computes its share.

        Raises SharedError if the loss or a gradient is not finite, MinigenError if memory runs out
        or another process has ended; the weights are then unchanged.
        """
        total = float(sum(batch.weights.sum(dtype=np.float64) for batch in batches))
        if total <= 0:
            raise SharedError(
                f"step {number} has no token to train on: every weight of its batches is 0"
            )
        rank, size = self.group.rank, self.group.size
        try:
            with advice_on_memory():
                losses: list[Callable[[], float]] = []
                for micro in range(rank, len(batches), size):
                    batch = batches[micro]
                    seed = self.dropout_seed(number, micro)
                    losses.append(
                        self.gradients.add_gradients(
                            batch.ids, batch.targets, batch.weights, total, seed
                        )
                    )
                loss = math.fsum(read_loss() for read_loss in losses)
                if size > 1:
                    self.gradients.all_reduce(self.group)
                norm = self.gradients.norm()
                # All use the norm of the first process: with another number of threads a process
                # may round it differently.
                loss, norm = self.group.sum_numbers([loss, norm if rank == 0 else 0.0])
            for name, value in (("loss", loss), ("gradient norm", norm)):
                if not math.isfinite(value):
                    raise SharedError(
                        f"the {name} is {value} at step {number}: "
                        f"lower the learning rate, which is {lr:g} there"
                    )
        except BaseException:  # also Ctrl-C: half a step's gradients must not reach the next
            self.gradients.discard()
            raise
        with advice_on_memory():
            self.gradients.update(lr, norm)
        return Step(loss, norm)

    def losses(self, batch: Batch, *, averaged: bool = False) -> npt.NDArray[np.float32]:
        """(B, T) nats of every target, whatever its weight, without dropout.

        `averaged`: by the averaged weights.
        """
        with advice_on_memory():
            return self.gradients.losses(batch.ids, batch.targets, averaged)

    def weights(self, *, averaged: bool = False) -> Tree:
        """A float32 copy of the weights, or of their average, which is the same if `ema` is 0."""
        return unflatten(self.gradients.weights(averaged))

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Everything that a resume needs besides the settings, for the same backend."""
        return self.gradients.state()

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continues from the state of a trainer with the same settings.

        The result is the same bit for bit if the trainer is `deterministic`. Raises MinigenError
        for the state of another model, optimizer or backend.
        """
        own = self.gradients.state()
        for name in dict.fromkeys([*own, *state]):
            if name.startswith("optimizer."):  # torch creates these at the first step
                continue
            if name not in own or name not in state or state[name].shape != own[name].shape:
                raise MinigenError(
                    "this training state was saved with other settings or another backend: "
                    f"{name} does not fit"
                )
        self.gradients.restore(state)

    def dropout_seed(self, number: int, micro: int) -> int:
        """The seed of dropout for one batch of one step."""
        return int(np.random.SeedSequence([self.seed, number, micro]).generate_state(1)[0])


@contextmanager
def advice_on_memory() -> Iterator[None]:
    """Adds to an error about memory in this block what to do about it."""
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise MinigenError(
            "out of memory in a training step: lower the batch size and accumulate over more "
            "batches, or lower the context"
        ) from error


def describe(path: str, param: Param, muon: bool) -> Leaf:
    """How a parameter is trained; `muon`: whether the optimizer is Muon, which is for matrices."""
    is_matrix = len(param.shape) == 2
    rows: tuple[int, ...] = ()
    if muon and is_matrix and path.split(".")[0] not in TABLES:
        rows = param.parts or (param.shape[0] // param.stacked,) * param.stacked
    return Leaf(path, tuple(param.shape), decayed=is_matrix, muon=rows)


def check(ops: Backend, optimizer: Optimizer, dropout: float) -> None:
    """Raises UsageError for a dtype that cannot be used for training, or a setting out of range."""
    if ops.dtype == "float16":
        raise UsageError(
            "the range of float16 is too small for training: choose float32 or bfloat16"
        )
    checked("dropout", dropout)
    for field in dataclasses.fields(optimizer):
        checked(field.metadata["key"] or field.name, getattr(optimizer, field.name))
