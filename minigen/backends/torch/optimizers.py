"""The optimizers of training on PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from minigen.backends.base import Array
from minigen.backends.training import Leaf, Optimizer

MUON = {"momentum": 0.95, "nesterov": True, "ns_steps": 5, "adjust_lr_fn": "match_rms_adamw"}


class FullMuon(torch.optim.Muon):  # type: ignore[misc]
    """torch's Muon, but orthogonalizing in the dtype of the weights.

    torch's step rounds to bfloat16 first for any dtype, which no other framework would reproduce.
    """

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            a, b, c = group["ns_coefficients"]
            for p in group["params"]:
                tall = p.shape[0] > p.shape[1]
                momentum = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                momentum.lerp_(p.grad, 1 - group["momentum"])
                x = p.grad.lerp(momentum, group["momentum"])
                if tall:
                    x = x.T
                x = x / (x.norm() + group["eps"])
                for _ in range(group["ns_steps"]):
                    gram = x @ x.T
                    x = a * x + (b * gram + c * gram @ gram) @ x
                if tall:
                    x = x.T
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(x, alpha=-0.2 * math.sqrt(max(p.shape)) * group["lr"])


def sort_key(leaf: Leaf) -> tuple[bool, bool]:
    """Orders weights so that each group of an optimizer is contiguous.

    Muon's come first, then AdamW's that decay, then the rest.
    """
    return not leaf.muon, not leaf.decayed


def make_optimizers(
    settings: Optimizer,
    leaves: Sequence[Leaf],
    flat: Array,
    gradient: Array,
    dtype: torch.dtype,
) -> list[torch.optim.Optimizer]:
    """The optimizers that update `flat` by `gradient`, both float arrays of all weights.

    `leaves` are the weights in the order in which they follow each other there, that of `sort_key`.
    `dtype` is the one that the model computes in. The learning rate is set before each step.
    """
    optimizers: list[torch.optim.Optimizer] = []
    matrices, first = [], 0
    for leaf in leaves:
        if leaf.muon:
            end = first + math.prod(leaf.shape)
            weights = flat[first:end].view(leaf.shape).split(leaf.muon)
            gradients = gradient[first:end].view(leaf.shape).split(leaf.muon)
            for part, part_gradient in zip(weights, gradients, strict=True):
                part.grad = part_gradient
                matrices.append(part)
            first = end
    if matrices:
        kind = torch.optim.Muon if dtype == torch.bfloat16 else FullMuon
        optimizers.append(kind(matrices, weight_decay=settings.weight_decay, **MUON))
    stretches = []
    for decayed in (True, False):
        count = sum(
            math.prod(leaf.shape) for leaf in leaves if not leaf.muon and leaf.decayed == decayed
        )
        if count:
            part = flat[first : first + count]
            part.grad = gradient[first : first + count]
            decay = settings.weight_decay if decayed else 0.0
            stretches.append({"params": [part], "weight_decay": decay})
            first += count
    if stretches:  # an adapter has matrices only
        adamw = torch.optim.AdamW(stretches, betas=settings.betas, eps=settings.eps, fused=True)
        optimizers.append(adamw)
    return optimizers
