"""What training asks of a framework, beside the operations of the model: gradients, optimizers and their state.

A `Training` holds one model's float32 weights, its optimizer and the gradients of the step under way. It computes with
operations of its own, the backend's and more: dropout, and the fused kernels that only a gradient pays for.
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
    """`name`: "adamw" (Loshchilov and Hutter 2019), or "muon" (Jordan et al. 2024): the matrices of the layers by Muon,
    with momentum 0.95 of Nesterov's form, five Newton-Schulz steps, and updates scaled by 0.2 sqrt(longer side) (Liu et
    al. 2025), so that AdamW's learning rate and decay fit it too; embedding, head, norms and biases by AdamW.

    `weight_decay` is decoupled, and on matrices only (the embedding is one). `clip` is the largest norm of all
    gradients together; 0: off. `ema` averages the weights with this decay a step, or (1 + n) / (10 + n) after n steps
    while that is less, so that the first weights are forgotten in short runs too; 0: off.
    """

    name: str = setting(
        "adamw",
        "muon: the layers' matrices by Muon, the rest by AdamW",
        choices=("adamw", "muon"),
        key="optimizer",
    )
    betas: tuple[float, float] = setting(
        (0.9, 0.99), "AdamW's decay of its two averages", least=0, below=1
    )
    eps: float = setting(1e-8, "AdamW's epsilon", above=0)
    weight_decay: float = setting(0.1, "on matrices alone", least=0)
    clip: float = setting(1.0, "largest norm of the gradient; 0: off", least=0)
    ema: float = setting(
        0.0,
        "average the weights with this decay a step, and keep the average; 0: off",
        least=0,
        below=1,
    )

    def average_decay(self, updates: int) -> float:
        """What the average keeps of itself at the update with this number, counted from 1."""
        return min(self.ema, (1 + updates) / (10 + updates))


@dataclass(frozen=True)
class Leaf:
    """One weight: whether it decays, and for Muon the rows of each of its matrices (none: AdamW updates it)."""

    path: str
    shape: tuple[int, ...]
    decayed: bool
    muon: tuple[int, ...] = ()


@dataclass(frozen=True)
class SoftTargets:
    """A teacher whose distribution is learned beside the text (Hinton, Vinyals and Dean 2015, "Distilling the
    knowledge in a neural network").

    `params` are on the device, in the backend's dtype. `tokens`: the ids below it mean something; what the teacher's
    vocabulary has beyond them is padding, and no part of its distribution.
    """

    forward: Forward
    params: Tree
    tokens: int
    weight: float
    temperature: float

    def logits(self, ops: Backend, ids: Array) -> Array:
        """ids (B, T) -> (B, T, tokens)."""
        return self.forward(ops, self.params, ids)[..., : self.tokens]

    def blend(self, nats: Any, divergence: Any) -> Any:
        """The loss of a target: `divergence` is KL(teacher || student) there, both at the temperature."""
        return (1 - self.weight) * nats + self.weight * self.temperature**2 * divergence


@dataclass(frozen=True)
class TrainingSettings:
    """How a model is trained, whichever it is.

    `compile`: the step is compiled by the framework. `deterministic`: on a GPU too the same settings give the same
    bytes, in every run on the same machine; a CPU's are the same in any case.
    """

    optimizer: Optimizer = field(default_factory=Optimizer)
    dropout: float = 0.0
    compile: bool = False
    teacher: SoftTargets | None = None
    deterministic: bool = True


class Training(Protocol):
    def add_gradients(
        self, ids: Ids, targets: Ids, weights: Floats, total: float, seed: int
    ) -> Callable[[], float]:
        """Adds the gradients of sum(weights * losses) / total over a batch (B, T) to those of the step, dropout drawn
        from `seed`. A loss is the nats of a target, or what a teacher makes of them. Returns what waits for the device
        and says that sum."""
        ...

    def all_reduce(self, group: Group) -> None:
        """Sums the gradients of the step over all processes."""
        ...

    def norm(self) -> float:
        """Of all gradients of the step together."""
        ...

    def update(self, lr: float, norm: float) -> None:
        """Clips the gradients, whose norm is given, updates the weights and the average, and begins a new step."""
        ...

    def discard(self) -> None:
        """Begins a new step without an update."""
        ...

    def losses(self, ids: Ids, targets: Ids, averaged: bool) -> Floats:
        """(B, T) nats of each target, without dropout."""
        ...

    def weights(self, averaged: bool) -> dict[str, Floats]:
        """A copy of every weight by its path."""
        ...

    def state(self) -> dict[str, npt.NDArray[Any]]: ...

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None: ...
