"""Training on PyTorch. All weights lie in one float32 array, so that a cast, a norm or an update is one operation."""

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
from minigen.backends.training import Floats, Forward, Ids, Leaf, TrainingSettings
from minigen.tree import unflatten

MUON = {"momentum": 0.95, "nesterov": True, "ns_steps": 5, "adjust_lr_fn": "match_rms_adamw"}


class FullMuon(torch.optim.Muon):  # type: ignore[misc]
    """torch's Muon, orthogonalising in the dtype of the weights.

    Its own step rounds to bfloat16 first whatever the dtype, and no other framework would follow the same path then.
    """

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            a, b, c = group["ns_coefficients"]
            for p in group["params"]:
                momentum = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                momentum.lerp_(p.grad, 1 - group["momentum"])
                x = p.grad.lerp(momentum, group["momentum"])
                x = x.T if p.shape[0] > p.shape[1] else x
                x = x / (x.norm() + group["eps"])
                for _ in range(group["ns_steps"]):
                    gram = x @ x.T
                    x = a * x + (b * gram + c * gram @ gram) @ x
                x = x.T if p.shape[0] > p.shape[1] else x
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(x, alpha=-0.2 * math.sqrt(max(p.shape)) * group["lr"])


class TorchTraining:
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
        # Muon's weights first, then those of AdamW that decay, then the rest: each optimizer has one stretch.
        self.leaves = sorted(leaves, key=lambda leaf: (not leaf.muon, not leaf.decayed))
        self.order = [leaf.path for leaf in leaves]
        self.dtype = getattr(torch, ops.dtype)
        master = torch.promote_types(
            self.dtype, torch.float32
        )  # float64 is for tests of the gradient
        self.flat = torch.cat(
            [torch.from_numpy(params[leaf.path]).to(master).reshape(-1) for leaf in self.leaves]
        )
        self.flat = self.flat.to(ops.device)
        self.gradient = torch.zeros_like(self.flat)
        self.parts = self.views(self.gradient)
        self.average = self.flat.clone() if settings.optimizer.ema else None
        self.updates, self.fresh = 0, True
        self.loss: Callable[..., Array] = self.batch_loss
        if (
            compiled
        ):  # a rotation's frequencies are cached; that the compiler looks past it is no news
            warnings.filterwarnings(
                "ignore", "Dynamo detected a call to a `functools.lru_cache`", UserWarning
            )
            self.loss = torch.compile(self.batch_loss)
        self.optimizers = list(self.make_optimizers())

    def views(self, flat: Array) -> list[Array]:
        pieces = flat.split([math.prod(leaf.shape) for leaf in self.leaves])
        return [piece.view(leaf.shape) for piece, leaf in zip(pieces, self.leaves, strict=True)]

    def make_optimizers(self) -> Iterator[torch.optim.Optimizer]:
        settings, groups, matrices, end = self.optimizer, [], [], 0
        for decayed in (True, False):
            count = sum(
                math.prod(leaf.shape)
                for leaf in self.leaves
                if not leaf.muon and leaf.decayed == decayed
            )
            groups.append((count, settings.weight_decay if decayed else 0.0))
        for leaf, weight, gradient in zip(
            self.leaves, self.views(self.flat), self.parts, strict=True
        ):
            if leaf.muon:
                for part, grad in zip(
                    weight.split(leaf.muon), gradient.split(leaf.muon), strict=True
                ):
                    part.grad = grad
                    matrices.append(part)
                end += weight.numel()
        if matrices:
            kind = torch.optim.Muon if self.dtype == torch.bfloat16 else FullMuon
            yield kind(matrices, weight_decay=settings.weight_decay, **MUON)
        stretches = []
        for count, decay in groups:
            if count:
                part = self.flat[end : end + count]
                part.grad = self.gradient[end : end + count]
                stretches.append({"params": [part], "weight_decay": decay})
                end += count
        if stretches:  # an adapter is matrices alone
            yield torch.optim.AdamW(stretches, betas=settings.betas, eps=settings.eps, fused=True)

    # -- one step -----------------------------------------------------------------------------------------------------
    def tree(self, values: Sequence[Array]) -> Tree:
        by_path = {leaf.path: x for leaf, x in zip(self.leaves, values, strict=True)}
        return unflatten({path: by_path[path] for path in self.order})

    def batch_loss(
        self, values: Sequence[Array], ids: Array, targets: Array, weights: Array
    ) -> Array:
        """The weighted sum of the losses of a batch, in float32."""
        if self.teacher is None:
            return (nats(self.forward(self.ops, self.tree(values), ids), targets) * weights).sum()
        with torch.no_grad():  # before the model, whose activations stay
            taught = self.teacher.logits(self.teacher_ops, ids)
        logits = self.forward(self.ops, self.tree(values), ids)
        apart = divergence(taught, logits, self.teacher.temperature)
        return (self.teacher.blend(nats(logits, targets), apart) * weights).sum()

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
        """Dropout draws from torch's default generators, which are as they were afterwards."""
        if not self.ops.rate:
            yield
            return
        device = torch.device(self.ops.device)
        # The kind of device is named: torch would take one of another kind for a number of a CUDA device.
        kept = (
            {"devices": [device], "device_type": device.type}
            if self.ops.accelerated
            else {"devices": []}
        )
        with torch.random.fork_rng(**kept):
            torch.manual_seed(seed)
            yield

    def send(self, x: npt.NDArray[Any]) -> Array:
        """A part of a batch on the device: whole numbers as indices, others in the type of the master weights.

        To a GPU from pinned memory: from any other the host would wait for all that it has asked of the device.
        """
        kind = torch.int64 if x.dtype.kind in "iu" else self.flat.dtype
        own = torch.from_numpy(np.array(x)).to(kind)  # a copy: others may be read-only
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
        flat = self.flat if self.average is None or not averaged else self.average
        with self.numbers():
            logits = self.forward(
                self.plain, self.tree(self.views(flat.to(self.dtype))), self.send(ids)
            )
            found = nats(logits, self.send(targets))
        return np.asarray(found.cpu().numpy(), np.float32)

    # -- what is kept -------------------------------------------------------------------------------------------------
    def weights(self, averaged: bool) -> dict[str, Floats]:
        flat = self.flat if self.average is None or not averaged else self.average
        by_path = {
            leaf.path: x
            for leaf, x in zip(self.leaves, self.views(flat.float().cpu()), strict=True)
        }
        return {path: by_path[path].numpy().copy() for path in self.order}

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
            kept: dict[int, dict[str, Array]] = {}
            for name in state:
                if name.startswith(f"optimizer.{number}."):
                    *_, index, key = name.split(".")
                    kept.setdefault(int(index), {})[key] = torch.from_numpy(np.array(state[name]))
            optimizer.load_state_dict(
                {"state": kept, "param_groups": optimizer.state_dict()["param_groups"]}
            )
        self.discard()


def nats(logits: Array, targets: Array) -> Array:
    """logits (B, T, V), targets (B, T) -> (B, T): the cross entropy, in float32 at least."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), reduction="none"
    ).view(targets.shape)


def divergence(taught: Array, logits: Array, temperature: float) -> Array:
    """Logits (B, T, N) of a teacher and (B, T, V) of a model, N <= V -> (B, T): KL(teacher || model) in nats, both at a
    temperature, in float32 at least."""
    p, q = (
        F.log_softmax(x.to(torch.promote_types(x.dtype, torch.float32)) / temperature, -1)
        for x in (taught, logits)
    )
    return F.kl_div(q[..., : p.shape[-1]], p, reduction="none", log_target=True).sum(-1)
