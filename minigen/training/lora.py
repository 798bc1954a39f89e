"""LoRA (Hu et al. 2021): training two small matrices for each weight, on top of frozen ones.

A reparametrisation outside of the model: what is trained is an architecture of its own, whose parameters are A (rank,
in) and B (out, rank) of each matrix, and whose forward pass is the model's with W + (alpha / rank) B A for each W.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.backends.base import Array, Backend, Tree
from minigen.checkpoints.adapters import PREFIX, product
from minigen.checkpoints.checkpoint import read_headers
from minigen.checkpoints.fingerprint import fingerprint
from minigen.checkpoints.loading import load_params
from minigen.checkpoints.plan import plan
from minigen.errors import UsageError
from minigen.families.family import Family
from minigen.layers.param import Param
from minigen.models.architecture import Architecture
from minigen.models.packing import module_of
from minigen.training.config import ModelConfig
from minigen.training.trainer import OUTER
from minigen.tree import flatten, unflatten


@dataclass(frozen=True)
class Target:
    """One matrix of the tree, and the tensors of its checkpoint that it is made of: each has a pair of its own."""

    path: str
    modules: tuple[str, ...]
    rows: tuple[int, ...]
    columns: int
    transposed: bool  # in the checkpoint


def find_targets(
    architecture: Architecture, family: Family, which: str
) -> tuple[tuple[Target, ...], list[str]]:
    """The layers' matrices, or those of attention alone; and the names of all other modules."""
    shapes = flatten(architecture.shapes())
    found, others = list[Target](), list[str]()
    for entry in plan(architecture, family, [family.prefix]):
        modules = tuple(module_of(piece.name) for piece in entry.pieces)
        param = shapes[entry.path]
        matrix = len(param.shape) == 2 and entry.path.split(".")[0] not in OUTER
        if matrix and (which == "all" or ".attention." in entry.path):
            rows = tuple(piece.shape[entry.transposed] for piece in entry.pieces)
            found.append(Target(entry.path, modules, rows, param.shape[1], entry.transposed))
        else:
            others += modules
    return tuple(found), others


@dataclass(frozen=True, eq=False)
class Lora:
    """A Trainable. `base`: the frozen weights by path, on the device, in the dtype that the model computes in."""

    architecture: Architecture
    base: Mapping[str, Array]
    targets: tuple[Target, ...]
    others: Sequence[str]  # modules that are no targets
    rank: int
    alpha: float
    source: Path  # where the base is
    fingerprint: str  # of the base

    def shapes(self) -> Tree:
        """A as PEFT and torch's linear layers draw it, uniform within 1 / sqrt(in); B is zero, so that the first step's
        model is the base."""
        flat: dict[str, Param] = {}
        for target in self.targets:
            for i, rows in enumerate(target.rows):
                bound = 1 / math.sqrt(target.columns)
                flat[f"{target.path}.{i}.A"] = Param((self.rank, target.columns), "uniform", bound)
                flat[f"{target.path}.{i}.B"] = Param((rows, self.rank), "zeros")
        return unflatten(flat)

    def merge(self, ops: Backend, params: Tree) -> Tree:
        """The parameters of the model itself."""
        flat, merged = flatten(params), dict(self.base)
        for target in self.targets:
            pairs = [
                (flat[f"{target.path}.{i}.A"], flat[f"{target.path}.{i}.B"])
                for i in range(len(target.rows))
            ]
            changes = [product(a, b, self.alpha / self.rank) for a, b in pairs]
            merged[target.path] = merged[target.path] + (
                changes[0] if len(changes) == 1 else ops.concat(changes, axis=0)
            )
        return unflatten(merged)

    def forward(self, ops: Backend, params: Tree, ids: Array) -> Array:
        return self.architecture.forward(ops, self.merge(ops, params), ids)

    # -- as PEFT stores it --------------------------------------------------------------------------------------------
    def tensors(self, params: Tree) -> dict[str, npt.NDArray[np.float32]]:
        flat, found = flatten(params), {}
        for target in self.targets:
            for i, module in enumerate(target.modules):
                for half in "AB":
                    found[f"{PREFIX}{module}.lora_{half}.weight"] = flat[
                        f"{target.path}.{i}.{half}"
                    ]
        return found

    def config(self) -> dict[str, Any]:
        """adapter_config.json."""
        base, revision = origin(self.source)
        modules = [module for target in self.targets for module in target.modules]
        return {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "revision": revision,
            "r": self.rank,
            "lora_alpha": int(self.alpha) if self.alpha == int(self.alpha) else self.alpha,
            "lora_dropout": 0.0,
            "target_modules": suffixes(modules, self.others),
            "fan_in_fan_out": all(target.transposed for target in self.targets),
            "bias": "none",
            "init_lora_weights": True,
            "inference_mode": True,
        }


def make_lora(
    m: ModelConfig, ops: Backend, architecture: Architecture, family: Family, source: Path
) -> Lora:
    """The adapter that the settings ask for, on the model in the folder `source`.

    Raises UsageError for a target that the model has not and for a rank that is too large, CheckpointError for weights
    that cannot be used.
    """
    targets, others = find_targets(architecture, family, m.lora_target)
    if not targets:
        raise UsageError(
            f"lora_target is {m.lora_target!r}: {source} has no such matrices: choose all"
        )
    sides = [
        (min(rows, t.columns), module)
        for t in targets
        for rows, module in zip(t.rows, t.modules, strict=True)
    ]
    side, module = min(sides)
    if m.lora_rank > side:
        raise UsageError(
            f"lora_rank is {m.lora_rank}: it must be at most {side}, the smaller side of {module}"
        )
    base = flatten(load_params(ops, architecture, family, read_headers(source), source))
    return Lora(
        architecture, base, targets, others, m.lora_rank, m.lora_alpha, source, fingerprint(source)
    )


def suffixes(modules: Sequence[str], others: Sequence[str]) -> list[str]:
    """The ends of the modules' names by which PEFT finds them, as short as they can be without finding others."""

    def end(name: str, parts: int) -> str:
        return ".".join(name.split(".")[-parts:])

    def shortest(name: str) -> str:
        ends = (end(name, parts) for parts in range(1, name.count(".") + 2))
        return next(e for e in ends if not any(f".{other}".endswith(f".{e}") for other in others))

    return sorted({shortest(module) for module in modules})


def origin(folder: Path) -> tuple[str, str | None]:
    """What other machines call a model: the hub's name and commit for a folder in its cache, else the folder."""
    match = re.search(r"/models--([\w.-]+)/snapshots/([0-9a-f]{40})$", folder.as_posix())
    return (match[1].replace("--", "/"), match[2]) if match else (str(folder), None)
