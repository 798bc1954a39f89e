"""Training on PyTorch: all weights are in one array, so that a norm or a cast is one operation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from minigen.backends.base import Array, Backend, Tree
from minigen.backends.group import Group
from minigen.backends.torch.backend import TorchBackend
from minigen.backends.torch.kernels import TrainingOps, keep_memory, use_cores
from minigen.backends.torch.numbers import training_numbers
from minigen.backends.torch.optimizers import make_optimizers, sort_key
from minigen.backends.training import Floats, Forward, Ids, Leaf, TrainingSettings
from minigen.tree import unflatten


class TorchTraining:
    """`Training` on PyTorch."""

    def __init__(
        self,
        ops: Backend,
        forward: Forward,
        leaves: Sequence[Leaf],
        params: Mapping[str, Floats],
        settings: TrainingSettings,
    ) -> None:
        dropout, compiled, teacher = settings.dropout, settings.compile, settings.teacher
        self.numbers = partial(training_numbers, ops.device, settings.deterministic)
        self.ops, self.plain = TrainingOps(ops, dropout, compiled), TrainingOps(ops, 0.0, False)
        self.teacher, self.teacher_ops = teacher, TrainingOps(ops, 0.0, compiled)
        self.optimizer, self.forward = settings.optimizer, forward
        if not ops.accelerated:
            keep_memory()
            if cast(TorchBackend, ops).asked_threads is None:
                use_cores()
        self.leaves = sorted(leaves, key=sort_key)
        self.order = [leaf.path for leaf in leaves]
        self.dtype = getattr(torch, ops.dtype)
        master = at_least_float32(self.dtype)  # float64 in tests of the gradient
        rows = []
        for leaf in self.leaves:
            rows.append(torch.from_numpy(params[leaf.path]).to(master).reshape(-1))
        self.flat = torch.cat(rows).to(ops.device)
        self.gradient = torch.zeros_like(self.flat)
        self.parts = self.views(self.gradient)
        self.average = self.flat.clone() if settings.optimizer.ema else None
        self.updates, self.fresh = 0, True
        self.loss: Callable[..., Array] = self.batch_loss
        if compiled:
            # The frequencies of rotations are cached, and the compiler ignores that, as it should.
            warnings.filterwarnings(
                "ignore", "Dynamo detected a call to a `functools.lru_cache`", UserWarning
            )
            self.loss = torch.compile(self.batch_loss)
        self.optimizers = make_optimizers(
            self.optimizer, self.leaves, self.flat, self.gradient, self.dtype
        )

    def views(self, flat: Array) -> list[Array]:
        """Each weight of `self.leaves` as a view of an array of all weights."""
        pieces = flat.split([math.prod(leaf.shape) for leaf in self.leaves])
        return [piece.view(leaf.shape) for piece, leaf in zip(pieces, self.leaves, strict=True)]

    # -- one step ---------------------------------------------------------------------------------
    def by_path(self, values: Sequence[Array]) -> dict[str, Array]:
        """The values of `self.leaves` by path, in the order in which the leaves were given."""
        values_by_path = {leaf.path: x for leaf, x in zip(self.leaves, values, strict=True)}
        return {path: values_by_path[path] for path in self.order}

    def tree(self, values: Sequence[Array]) -> Tree:
        """The parameter tree with the values of `self.leaves`."""
        return unflatten(self.by_path(values))

    def batch_loss(
        self, values: Sequence[Array], ids: Array, targets: Array, weights: Array
    ) -> Array:
        """The weighted sum of the losses of a batch, in float32."""
        if self.teacher is None:
            logits = self.forward(self.ops, self.tree(values), ids)
            return (nats(logits, targets) * weights).sum()
        with torch.no_grad():  # before the model, whose activations take memory until the end
            taught = self.teacher.logits(self.teacher_ops, ids)
        logits = self.forward(self.ops, self.tree(values), ids)
        distance = divergence(taught, logits, self.teacher.temperature)
        losses = self.teacher.blend(nats(logits, targets), distance)
        return (losses * weights).sum()

    def add_gradients(
        self, ids: Ids, targets: Ids, weights: Floats, total: float, seed: int
    ) -> Callable[[], float]:
        values = [x.requires_grad_() for x in self.views(self.flat.detach().to(self.dtype))]
        batch = [self.send(x) for x in (ids, targets, weights / np.float32(total))]
        with self.numbers(), self.seeded(seed):
            loss = self.loss(values, *batch)
            gradients = torch.autograd.grad(loss, values)
        for part, gradient in zip(self.parts, gradients, strict=True):
            if self.fresh:
                part.copy_(gradient)
            else:
                part.add_(gradient)
        self.fresh = False
        return lambda: float(loss.detach())

    @contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """Seeds torch's default generators, from which dropout draws, and restores them."""
        if not self.ops.rate:
            yield
            return
        device = torch.device(self.ops.device)
        restored: dict[str, Any] = {"devices": []}
        if self.ops.accelerated:
            # Without its type, torch would take a device for the index of a CUDA device.
            restored = {"devices": [device], "device_type": device.type}
        with torch.random.fork_rng(**restored):
            torch.manual_seed(seed)
            yield

    def send(self, x: npt.NDArray[Any]) -> Array:
        """An array of a batch on the device: integers as int64, floats in the dtype of the weights.

        It is copied to a GPU from pinned memory; otherwise the host would wait for the device.
        """
        kind = torch.int64 if x.dtype.kind in "iu" else self.flat.dtype
        own = torch.from_numpy(np.array(x)).to(kind)  # a copy, as `x` may be read-only
        if not self.ops.device.startswith("cuda"):
            return own.to(self.ops.device)
        return own.pin_memory().to(self.ops.device, non_blocking=True)

    def all_reduce(self, group: Group) -> None:
        group.sum(self.gradient)

    def norm(self) -> float:
        with self.numbers():
            return float(torch.linalg.vector_norm(self.gradient))

    def update(self, lr: float, norm: float) -> None:
        clip = self.optimizer.clip
        if clip and norm > clip:
            self.gradient.mul_(clip / (norm + 1e-6))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            with self.numbers():
                optimizer.step()
        self.updates += 1
        if self.average is not None:
            self.average.lerp_(self.flat, 1 - self.optimizer.average_decay(self.updates))
        self.discard()

    def discard(self) -> None:
        self.fresh = True

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def losses(self, ids: Ids, targets: Ids, averaged: bool) -> Floats:
        params = self.tree(self.views(self.chosen(averaged).to(self.dtype)))
        with self.numbers():
            logits = self.forward(self.plain, params, self.send(ids))
            losses = nats(logits, self.send(targets))
        return np.asarray(losses.cpu().numpy(), np.float32)

    # -- weights and state ------------------------------------------------------------------------
    def chosen(self, averaged: bool) -> Array:
        """All weights, or their average if it is asked for and kept."""
        if averaged and self.average is not None:
            return self.average
        return self.flat

    def weights(self, averaged: bool) -> dict[str, Floats]:
        views = self.views(self.chosen(averaged).float().cpu())
        return {path: x.numpy().copy() for path, x in self.by_path(views).items()}

    def state(self) -> dict[str, npt.NDArray[Any]]:
        arrays = {"weights": self.flat, "updates": torch.tensor(self.updates)}
        if self.average is not None:
            arrays["average"] = self.average
        for number, optimizer in enumerate(self.optimizers):
            for index, values in optimizer.state_dict()["state"].items():
                arrays |= {f"optimizer.{number}.{index}.{name}": x for name, x in values.items()}
        return {name: x.detach().cpu().numpy().copy() for name, x in arrays.items()}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        self.flat.copy_(torch.from_numpy(np.array(state["weights"])))
        if self.average is not None:
            self.average.copy_(torch.from_numpy(np.array(state["average"])))
        self.updates = int(state["updates"])
        for number, optimizer in enumerate(self.optimizers):
            restored: dict[int, dict[str, Array]] = {}
            for name in state:
                if name.startswith(f"optimizer.{number}."):
                    *_, index, key = name.split(".")
                    values = restored.setdefault(int(index), {})
                    values[key] = torch.from_numpy(np.array(state[name]))
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": restored, "param_groups": groups})
        self.discard()


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """`dtype`, or float32 if that is more precise."""
    return torch.promote_types(dtype, torch.float32)


def nats(logits: Array, targets: Array) -> Array:
    """The cross entropy in nats, in float32 at least.

    logits (B, T, V), targets (B, T) -> (B, T).
    """
    logits = logits.to(at_least_float32(logits.dtype))
    rows = logits.reshape(-1, logits.shape[-1])
    return F.cross_entropy(rows, targets.reshape(-1), reduction="none").view(targets.shape)


def divergence(taught: Array, logits: Array, temperature: float) -> Array:
    """KL(teacher || model) in nats, both softened by a temperature, in float32 at least.

    Logits `taught` (B, T, N) of the teacher and `logits` (B, T, V) of the model, N <= V -> (B, T).
    """
    p = F.log_softmax(taught.to(at_least_float32(taught.dtype)) / temperature, -1)
    q = F.log_softmax(logits.to(at_least_float32(logits.dtype)) / temperature, -1)
    return F.kl_div(q[..., : p.shape[-1]], p, reduction="none", log_target=True).sum(-1)
