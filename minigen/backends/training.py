"""What training needs from a framework besides operations: gradients, optimizers and their state.

A `Training` holds the float32 weights of one model, its optimizer, and the gradients of the current
step. It computes with operations of its own, which extend the backend's by dropout and by fused
kernels that only pay off with gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from minigen.backends.base import Array, Backend, Tree
from minigen.backends.group import Group
from minigen.reading.settings import setting

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Forward = Callable[[Backend, Tree, Array], Array]  # (ops, params, ids (B, T)) -> logits (B, T, V)


@dataclass(frozen=True)
class Optimizer:
    """How gradients change the weights.

    `name` is "adamw" (Loshchilov and Hutter 2019) or "muon" (Jordan et al. 2024). With "muon", the
    matrices of the layers are updated by Muon (Nesterov momentum 0.95, five Newton-Schulz steps),
    and embedding, head, norms and biases by AdamW. Muon's updates are scaled by
    0.2 sqrt(longer side) (Liu et al. 2025), so that one learning rate and decay fit both.

    `weight_decay` is decoupled, and applies to matrices only (the embedding is one). `clip` is the
    largest norm of all gradients together; 0: off. `ema` is the decay per step of an average of the
    weights, or (1 + n) / (10 + n) after n steps while that is less, so that short runs forget their
    first weights too; 0: off.
    """

    name: str = setting(
        "adamw",
        "adamw, or muon: Muon for the matrices of the layers, AdamW for the rest",
        choices=("adamw", "muon"),
        key="optimizer",
    )
    betas: tuple[float, float] = setting(
        (0.9, 0.99), "decay rates of AdamW's two averages", least=0, below=1
    )
    eps: float = setting(1e-8, "AdamW's epsilon", above=0)
    weight_decay: float = setting(0.1, "weight decay, applied to matrices only", least=0)
    clip: float = setting(1.0, "largest gradient norm (clipping); 0: off", least=0)
    ema: float = setting(
        0.0,
        "save an exponential moving average of the weights with this decay per step; 0: off",
        least=0,
        below=1,
    )

    def average_decay(self, updates: int) -> float:
        """The decay of the average at this update, counted from 1."""
        return min(self.ema, (1 + updates) / (10 + updates))


@dataclass(frozen=True)
class Leaf:
    """One weight: its path in the parameter tree, its shape, and how it is updated.

    `muon` has the number of rows of each matrix in it that Muon updates; empty for AdamW.
    """

    path: str
    shape: tuple[int, ...]
    decayed: bool
    muon: tuple[int, ...] = ()


@dataclass(frozen=True)
class SoftTargets:
    """A teacher whose distribution is learned in addition to the text (Hinton, Vinyals and Dean
    2015, "Distilling the knowledge in a neural network").

    `params` are on the device, in the backend's dtype. Ids from `tokens` on are padding in the
    teacher's vocabulary, and are left out of its distribution. `weight` is the teacher's share of
    the loss.
    """

    forward: Forward
    params: Tree
    tokens: int
    weight: float
    temperature: float

    def logits(self, ops: Backend, ids: Array) -> Array:
        """The teacher's logits: ids (B, T) -> (B, T, tokens)."""
        return self.forward(ops, self.params, ids)[..., : self.tokens]

    def blend(self, nats: Any, divergence: Any) -> Any:
        """The loss of each target, from its cross entropy and KL(teacher || student), which are of
        one shape; the latter with both softened by the temperature."""
        return (1 - self.weight) * nats + self.weight * self.temperature**2 * divergence


@dataclass(frozen=True)
class TrainingSettings:
    """How a model is trained, for any architecture.

    `compile`: the framework compiles the step. `deterministic`: the same settings give the same
    bytes in every run on the same machine, on a GPU too; on a CPU this always holds.
    """

    optimizer: Optimizer = field(default_factory=Optimizer)
    dropout: float = 0.0
    compile: bool = False
    teacher: SoftTargets | None = None
    deterministic: bool = True


class Training(Protocol):
    """The weights, optimizer and gradients of one model, on one device of one process."""

    def add_gradients(
        self, ids: Ids, targets: Ids, weights: Floats, total: float, seed: int
    ) -> Callable[[], float]:
        """Adds the gradients of sum(weights * losses) / total to those of the step.

        `ids`, `targets` and `weights` are a batch (B, T). A loss is the cross entropy of a target
        in nats, blended with the divergence from a teacher if there is one. Dropout is drawn from
        `seed`. Returns a function that waits for the device and gives the sum.
        """
        ...

    def all_reduce(self, group: Group) -> None:
        """Sums the gradients of the step over all processes."""
        ...

    def norm(self) -> float:
        """The norm of all gradients of the step together."""
        ...

    def update(self, lr: float, norm: float) -> None:
        """Clips the gradients, whose norm is `norm`, updates the weights and their average, and
        starts a new step."""
        ...

    def discard(self) -> None:
        """Starts a new step without an update."""
        ...

    def losses(self, ids: Ids, targets: Ids, averaged: bool) -> Floats:
        """The cross entropy of each target in nats (B, T), without dropout.

        `averaged`: by the averaged weights, if an average is kept.
        """
        ...

    def weights(self, averaged: bool) -> dict[str, Floats]:
        """A copy of every weight by its path; of its average if `averaged` and one is kept."""
        ...

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Everything that `restore` needs to continue with the same numbers."""
        ...

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Sets weights, average and optimizer to a state that `state` gave."""
        ...
