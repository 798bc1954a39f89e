"""Training on MLX: its value_and_grad, its optimizers, and dropout from its keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import numpy.typing as npt

from minigen.backends.base import Array, Backend, Quantized
from minigen.backends.group import Group
from minigen.backends.mlx.backend import MLXBackend
from minigen.backends.training import Floats, Forward, Ids, Leaf, TrainingSettings
from minigen.tree import unflatten

Flat = dict[str, Array]


class TrainingOps(MLXBackend):
    """The backend that a Training computes with. `key` is set for each batch; each site takes its own from it."""

    def __init__(self, ops: Any, rate: float, ordered: bool = False) -> None:
        self.device, self.accelerated, self.dtype = ops.device, ops.accelerated, ops.dtype
        self.rate, self.ordered = rate, ordered
        self.key: Array = None

    def embedding(self, ids: Array, weight: Array | Quantized) -> Array:
        """As the backend's. With `ordered`, on the CPU: a GPU adds the gradients of a row in any order."""
        if self.ordered and not isinstance(weight, Quantized):
            return mx.take(weight, ids, axis=0, stream=mx.cpu)
        return super().embedding(ids, weight)

    def dropout(self, x: Array) -> Array:
        if not self.rate:
            return x
        self.key, own = mx.random.split(self.key)
        kept = mx.random.bernoulli(1 - self.rate, x.shape, own)
        return mx.where(kept, x * (1 / (1 - self.rate)), mx.zeros_like(x))


class MLXTraining:
    def __init__(
        self,
        ops: Backend,
        forward: Forward,
        leaves: Sequence[Leaf],
        params: Mapping[str, Floats],
        settings: TrainingSettings,
    ) -> None:
        optimizer, self.teacher, self.forward = settings.optimizer, settings.teacher, forward
        ordered = settings.deterministic and ops.accelerated
        self.ops, self.plain = TrainingOps(ops, settings.dropout, ordered), TrainingOps(ops, 0.0)
        self.leaves, self.optimizer = {leaf.path: leaf for leaf in leaves}, optimizer
        self.dtype = getattr(mx, ops.dtype)
        self.params: Flat = {leaf.path: mx.array(params[leaf.path]) for leaf in leaves}
        self.average: Flat | None = dict(self.params) if optimizer.ema else None
        self.gradient: Flat = {}
        self.updates = 0
        gradients = mx.value_and_grad(self.batch_loss)
        self.gradients: Callable[..., tuple[Array, Flat]] = (
            mx.compile(gradients) if settings.compile else gradients
        )
        self.groups = list(self.make_groups())
        for own, rule, factor in self.groups:
            rule.init(pieces(self.params, own))
            mx.eval(rule.state)
            assert factor > 0
        mx.eval(self.params)

    def make_groups(self) -> Iterator[tuple[list[Leaf], optim.Optimizer, float]]:
        """Weights, the optimizer that updates them, and the factor of its learning rate."""
        settings, leaves = self.optimizer, list(self.leaves.values())
        # MLX scales Muon's updates by sqrt(max(1, rows / columns)) (Jordan); 0.2 sqrt(columns) more makes that
        # 0.2 sqrt(max(rows, columns)) (Liu et al.), which is what torch calls match_rms_adamw. Its weight decay is
        # added to the gradient, where it only turns the direction: ours is decoupled, in `update`.
        for columns in sorted({leaf.shape[1] for leaf in leaves if leaf.muon}):
            own = [leaf for leaf in leaves if leaf.muon and leaf.shape[1] == columns]
            rule = optim.Muon(0.0, momentum=0.95, weight_decay=0.0, nesterov=True, ns_steps=5)
            yield own, rule, 0.2 * math.sqrt(columns)
        for decayed in (True, False):
            own = [leaf for leaf in leaves if not leaf.muon and leaf.decayed == decayed]
            decay = settings.weight_decay if decayed else 0.0
            if own:
                betas = list(settings.betas)
                yield own, optim.AdamW(0.0, betas, settings.eps, decay, bias_correction=True), 1.0

    # -- one step -----------------------------------------------------------------------------------------------------
    def cast(self, params: Flat) -> Any:
        return unflatten({path: x.astype(self.dtype) for path, x in params.items()})

    def batch_loss(
        self, params: Flat, ids: Array, targets: Array, weights: Array, key: Array
    ) -> Array:
        """The weighted sum of the losses of a batch, in float32."""
        self.ops.key = key
        logits = self.forward(self.ops, self.cast(params), ids)
        losses = nats(logits, targets)
        if self.teacher is not None:
            apart = divergence(
                self.teacher.logits(self.plain, ids), logits, self.teacher.temperature
            )
            losses = self.teacher.blend(losses, apart)
        return (losses * weights).sum()

    def add_gradients(
        self, ids: Ids, targets: Ids, weights: Floats, total: float, seed: int
    ) -> Callable[[], float]:
        arrays = (
            self.ops.asarray(ids),
            self.ops.asarray(targets),
            mx.array(weights / np.float32(total)),
        )
        loss, gradient = self.gradients(self.params, *arrays, mx.random.key(seed))
        if self.gradient:
            gradient = {path: self.gradient[path] + x for path, x in gradient.items()}
        self.gradient = gradient
        mx.eval(loss, gradient)
        return lambda: float(loss.item())

    def all_reduce(self, group: Group) -> None:
        total = group.sum(mx.concatenate([self.gradient[path].reshape(-1) for path in self.leaves]))
        ends = np.cumsum([math.prod(leaf.shape) for leaf in self.leaves.values()])[:-1].tolist()
        parts = zip(self.leaves.values(), mx.split(total, ends), strict=True)
        self.gradient = {leaf.path: part.reshape(leaf.shape) for leaf, part in parts}

    def norm(self) -> float:
        _, norm = optim.clip_grad_norm(
            self.gradient, 1.0
        )  # lazy: the clipped gradients are never computed
        return float(norm.item())

    def update(self, lr: float, norm: float) -> None:
        settings, gradient = self.optimizer, self.gradient
        if settings.clip:
            gradient, _ = optim.clip_grad_norm(gradient, settings.clip)
        for own, rule, factor in self.groups:
            rule.learning_rate = lr * factor
            weights = pieces(self.params, own)
            if own[0].muon:
                weights = {
                    name: x * (1 - lr * settings.weight_decay) for name, x in weights.items()
                }
            self.params |= whole(rule.apply_gradients(pieces(gradient, own), weights), own)
        self.updates += 1
        if self.average is not None:
            share = 1 - settings.average_decay(self.updates)
            self.average = {
                path: x + share * (self.params[path] - x) for path, x in self.average.items()
            }
        mx.eval(self.params, self.average or {}, [rule.state for _, rule, _ in self.groups])
        self.discard()

    def discard(self) -> None:
        self.gradient = {}

    def losses(self, ids: Ids, targets: Ids, averaged: bool) -> Floats:
        logits = self.forward(self.plain, self.cast(self.chosen(averaged)), self.ops.asarray(ids))
        return np.array(nats(logits, self.ops.asarray(targets)))

    # -- what is kept -------------------------------------------------------------------------------------------------
    def chosen(self, averaged: bool) -> Flat:
        return self.average if averaged and self.average is not None else self.params

    def weights(self, averaged: bool) -> dict[str, Floats]:
        return {path: np.array(x) for path, x in self.chosen(averaged).items()}

    def state(self) -> dict[str, npt.NDArray[Any]]:
        arrays = {f"weights.{path}": x for path, x in self.params.items()}
        arrays |= {f"average.{path}": x for path, x in (self.average or {}).items()}
        for number, (_, rule, _) in enumerate(self.groups):
            arrays |= {f"optimizer.{number}.{name}": x for name, x in nested(rule.state).items()}
        return {name: np.array(x) for name, x in arrays.items()} | {
            "updates": np.array(self.updates)
        }

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        self.params = {path: mx.array(state[f"weights.{path}"]) for path in self.params}
        if self.average is not None:
            self.average = {path: mx.array(state[f"average.{path}"]) for path in self.average}
        self.updates = int(state["updates"])
        for number, (own, rule, _) in enumerate(self.groups):
            names = list(pieces(self.params, own))
            for name in names:
                kept = rule.state[name]
                rule.state[name] = {
                    key: mx.array(state[f"optimizer.{number}.{name}/{key}"]) for key in kept
                }
            rule.state["step"] = mx.array(state[f"optimizer.{number}.step"])
        self.discard()


def pieces(flat: Flat, leaves: Sequence[Leaf]) -> Flat:
    """What an optimizer takes: whole weights, and for Muon each matrix of those that hold several."""
    found: Flat = {}
    for leaf in leaves:
        if len(leaf.muon) < 2:
            found[leaf.path] = flat[leaf.path]
        else:
            parts = mx.split(flat[leaf.path], np.cumsum(leaf.muon[:-1]).tolist())
            found |= {f"{leaf.path}[{i}]": part for i, part in enumerate(parts)}
    return found


def whole(found: Flat, leaves: Sequence[Leaf]) -> Flat:
    """The inverse of `pieces`."""
    joined: Flat = {}
    for leaf in leaves:
        count = len(leaf.muon)
        if count < 2:
            joined[leaf.path] = found[leaf.path]
        else:
            parts = [found[f"{leaf.path}[{i}]"] for i in range(count)]
            joined[leaf.path] = mx.concatenate(parts)
    return joined


def nested(state: Mapping[str, Any]) -> Flat:
    """An optimizer's state with the names of its weights' arrays behind a slash: "blocks.0.norm1.weight/m"."""
    found: Flat = {}
    for name, value in state.items():
        if isinstance(value, dict):
            found |= {f"{name}/{key}": x for key, x in value.items()}
        else:
            found[name] = value
    return found


def nats(logits: Array, targets: Array) -> Array:
    """logits (B, T, V), targets (B, T) -> (B, T): the cross entropy, in float32."""
    logits = logits.astype(mx.float32)
    chosen = mx.take_along_axis(logits, targets[..., None], axis=-1).squeeze(-1)
    return mx.logsumexp(logits, axis=-1) - chosen


def divergence(taught: Array, logits: Array, temperature: float) -> Array:
    """Logits (B, T, N) of a teacher and (B, T, V) of a model, N <= V -> (B, T): KL(teacher || model) in nats, both at a
    temperature, in float32."""
    p, q = (x.astype(mx.float32) / temperature for x in (taught, logits))
    p, q = (x - mx.logsumexp(x, axis=-1, keepdims=True) for x in (p, q))
    return (mx.exp(p) * (p - q[..., : p.shape[-1]])).sum(-1)
