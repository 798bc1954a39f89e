"""LoRA (Hu et al. 2021): training two small matrices for each weight, on top of frozen ones.

The model itself is unchanged. What is trained is an architecture of its own, with A (rank, in) and
B (out, rank) for each matrix W as parameters. Its forward pass is the model's, with
W + (alpha / rank) B A in place of each W.
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
from minigen.training.trainer import TABLES
from minigen.tree import flatten, unflatten


@dataclass(frozen=True)
class Target:
    """A matrix of the model, and the tensors of the checkpoint in it, each with its own A and B."""

    path: str
    modules: tuple[str, ...]
    rows: tuple[int, ...]
    columns: int
    transposed: bool  # in the checkpoint


def find_targets(
    architecture: Architecture, family: Family, which: str
) -> tuple[tuple[Target, ...], list[str]]:
    """All matrices of the layers, or only those of attention; and the names of all other modules.

    `which` is "all" or "attention".
    """
    shapes = flatten(architecture.shapes())
    targets: list[Target] = []
    others: list[str] = []
    for entry in plan(architecture, family, [family.prefix]):
        modules = tuple(module_of(piece.name) for piece in entry.pieces)
        param = shapes[entry.path]
        is_matrix = len(param.shape) == 2 and entry.path.split(".")[0] not in TABLES
        if is_matrix and (which == "all" or ".attention." in entry.path):
            rows = tuple(piece.shape[entry.transposed] for piece in entry.pieces)
            target = Target(entry.path, modules, rows, param.shape[1], entry.transposed)
            targets.append(target)
        else:
            others += modules
    return tuple(targets), others


@dataclass(frozen=True, eq=False)
class Lora:
    """A Trainable: the adapter of a model.

    `base`: the frozen weights by path, on the device, in the dtype of the model's computations.
    """

    architecture: Architecture
    base: Mapping[str, Array]
    targets: tuple[Target, ...]
    others: Sequence[str]  # modules that are not targets
    rank: int
    alpha: float
    source: Path  # the folder of the base
    fingerprint: str  # of the base

    def shapes(self) -> Tree:
        """The parameters of the adapter, by path.

        A is drawn as in PEFT and in torch's linear layers, uniform within 1 / sqrt(in). B is zero,
        so that training begins with the base.
        """
        flat: dict[str, Param] = {}
        for target in self.targets:
            for i, rows in enumerate(target.rows):
                bound = 1 / math.sqrt(target.columns)
                flat[f"{target.path}.{i}.A"] = Param((self.rank, target.columns), "uniform", bound)
                flat[f"{target.path}.{i}.B"] = Param((rows, self.rank), "zeros")
        return unflatten(flat)

    def merge(self, ops: Backend, params: Tree) -> Tree:
        """The parameters of the model itself, with the adapter's added."""
        flat = flatten(params)
        merged = dict(self.base)
        for target in self.targets:
            changes: list[Array] = []
            for i in range(len(target.rows)):
                a, b = flat[f"{target.path}.{i}.A"], flat[f"{target.path}.{i}.B"]
                changes.append(product(a, b, self.alpha / self.rank))
            change = changes[0] if len(changes) == 1 else ops.concat(changes, axis=0)
            merged[target.path] = merged[target.path] + change
        return unflatten(merged)

    def forward(self, ops: Backend, params: Tree, ids: Array) -> Array:
        return self.architecture.forward(ops, self.merge(ops, params), ids)

    # -- files, as PEFT stores them --
    def tensors(self, params: Tree) -> dict[str, npt.NDArray[np.float32]]:
        """The tensors of adapter_model.safetensors."""
        flat = flatten(params)
        tensors: dict[str, npt.NDArray[np.float32]] = {}
        for target in self.targets:
            for i, module in enumerate(target.modules):
                for half in "AB":
                    name = f"{PREFIX}{module}.lora_{half}.weight"
                    tensors[name] = flat[f"{target.path}.{i}.{half}"]
        return tensors

    def config(self) -> dict[str, Any]:
        """adapter_config.json."""
        base, revision = origin(self.source)
        modules: list[str] = []
        for target in self.targets:
            modules += target.modules
        alpha = int(self.alpha) if self.alpha == int(self.alpha) else self.alpha
        return {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "revision": revision,
            "r": self.rank,
            "lora_alpha": alpha,
            "lora_dropout": 0.0,
            "target_modules": suffixes(modules, self.others),
            "fan_in_fan_out": all(target.transposed for target in self.targets),
            "bias": "none",
            "init_lora_weights": True,
            "inference_mode": True,
        }


def make_lora(
    settings: ModelConfig, ops: Backend, architecture: Architecture, family: Family, source: Path
) -> Lora:
    """The adapter of the settings for the model in the folder `source`.

    Raises UsageError for a target that the model does not have and for a rank that is too large,
    CheckpointError for weights that cannot be used.
    """
    targets, others = find_targets(architecture, family, settings.lora_target)
    if not targets:
        raise UsageError(
            f"lora_target is {settings.lora_target!r}, but {source} has no such matrices: "
            "choose all"
        )
    sides: list[tuple[int, str]] = []  # (smaller side, module)
    for target in targets:
        for rows, module in zip(target.rows, target.modules, strict=True):
            sides.append((min(rows, target.columns), module))
    side, module = min(sides)
    if settings.lora_rank > side:
        raise UsageError(
            f"lora_rank is {settings.lora_rank}: it must be at most {side}, "
            f"the smaller side of {module}"
        )
    return Lora(
        architecture=architecture,
        base=flatten(load_params(ops, architecture, family, read_headers(source), source)),
        targets=targets,
        others=others,
        rank=settings.lora_rank,
        alpha=settings.lora_alpha,
        source=source,
        fingerprint=fingerprint(source),
    )


def suffixes(modules: Sequence[str], others: Sequence[str]) -> list[str]:
    """The ends of the modules' names by which PEFT finds them: the shortest that match no other."""
    return sorted({shortest_end(module, others) for module in modules})


def shortest_end(name: str, others: Sequence[str]) -> str:
    """The shortest end of a dotted name, in whole parts, with which none of the others ends."""
    parts = name.split(".")
    for count in range(1, len(parts)):
        end = ".".join(parts[-count:])
        if not any(f".{other}".endswith(f".{end}") for other in others):
            return end
    return name


def origin(folder: Path) -> tuple[str, str | None]:
    """(name, commit) of a model in the hub's cache, or else (folder, None)."""
    match = re.search(r"/models--([\w.-]+)/snapshots/([0-9a-f]{40})$", folder.as_posix())
    if not match:
        return str(folder), None
    return match[1].replace("--", "/"), match[2]
