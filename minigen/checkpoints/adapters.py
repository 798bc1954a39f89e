"""LoRA adapters (Hu et al. 2021) as PEFT stores them: two small matrices for each changed weight.

adapter_config.json            the base model, alpha, and which of PEFT's variants it is
adapter_model.safetensors      base_model.model.<module>.lora_A.weight (rank, in)
                               and base_model.model.<module>.lora_B.weight (out, rank)

Merged, a weight W (out, in) becomes W + scale B A. Variants that compute something else are
refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minigen.backends.base import Array, Backend
from minigen.checkpoints.adapter_settings import refuse_variants, scale_of
from minigen.checkpoints.checkpoint import read_file, read_metadata
from minigen.checkpoints.hub import resolve
from minigen.checkpoints.weight_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    abbreviate,
    contents_of,
    is_adapter_of,
    list_files,
    no_adapter_weights,
    read_object,
)
from minigen.errors import CheckpointError, SourceError, shown
from minigen.models import stored_dtypes
from minigen.models.packing import module_of
from minigen.models.tensor_info import TensorInfo
from minigen.reading import at_home
from minigen.reading.patterns import Matcher

CONFIG, WEIGHTS = ADAPTER_CONFIG, ADAPTER_WEIGHTS
PREFIX = "base_model.model."  # of every tensor name: PEFT's own two wrappers
BASE_KEY = "minigen_base"  # in the metadata of the weights: the fingerprint of the base model


@dataclass(frozen=True)
class Pair:
    """What is added to one weight: scale B A, with A (rank, in) and B (out, rank)."""

    a: TensorInfo
    b: TensorInfo
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the weight that it fits."""
        return self.b.shape[0], self.a.shape[1]


@dataclass(frozen=True)
class Adapter:
    """A stored adapter.

    Fields:
        folder: Where it is.
        base: The model that it names as its base, a folder or a hub id; "" if it names none.
        fingerprint: The fingerprint of that model; "" if unknown.
        pairs: By module, as transformers names it.
    """

    folder: Path
    base: str
    fingerprint: str
    pairs: Mapping[str, Pair]

    def base_folder(self, *, offline: bool = False) -> Path:
        """The folder of the base model.

        Raises SourceError: it cannot be found.
        Raises CheckpointError: it is an adapter itself.
        """
        remedy = (
            f"correct base_model_name_or_path in its {CONFIG}, or name the model: "
            "minigen convert MODEL OUT --lora"
        )
        if not self.base:
            raise SourceError(f"the adapter {self.folder} does not name its base model: {remedy}")
        try:
            folder = resolve(self.base, offline=offline)
        except SourceError as error:
            raise SourceError(
                f"cannot load the base model of adapter {self.folder} ({error}): {remedy}"
            ) from error
        if is_adapter(folder):
            raise CheckpointError(
                f"the base model of adapter {self.folder}, {folder}, is an adapter too: {remedy}"
            )
        return folder

    def keyed(self, prefix: str) -> dict[str, Pair]:
        """The pairs by the `key_of` their weights."""
        return {module.removeprefix(prefix): pair for module, pair in self.pairs.items()}

    def check(self, shapes: Mapping[str, Sequence[int]], prefix: str, where: Path) -> None:
        """Checks that every pair fits a weight.

        Args:
            shapes: (out, in) of every weight of the model, by `key_of`.
            prefix: The family's prefix of tensor names.
            where: The model, for messages.

        Raises CheckpointError: a pair fits none. The message names it.
        """
        unknown, wrong = [], []
        for key, pair in self.keyed(prefix).items():
            shape = tuple(shapes.get(key, ()))
            if len(shape) != 2:
                unknown.append(key)
            elif pair.shape != shape:
                wrong.append(f"{key} is {pair.shape}, the model's is {shape}")
        faults = wrong[:4]
        if unknown:
            faults.insert(0, f"the model has no weight {abbreviate(unknown)}")
        if faults:
            raise CheckpointError(
                f"the adapter {self.folder} does not fit {where}: {'; '.join(faults)}: "
                "it was made for another model"
            )

    def merger(self, ops: Backend, prefix: str) -> Callable[[str, bool, Array], Array]:
        """A function that merges the adapter into a stored weight.

        Its arguments are the name of the weight, whether it is stored as (in, out), and the
        weight. It computes on the host, in float64, and rounds to float32, so every backend gives
        the same.
        """
        stored, keyed = ops.load(self.folder / WEIGHTS), self.keyed(prefix)

        def merge(name: str, transposed: bool, weight: Array) -> Array:
            pair = keyed.get(key_of(name, prefix))
            if pair is None:
                return weight
            a = ops.numpy(stored[pair.a.name]).astype(np.float64)
            b = ops.numpy(stored[pair.b.name]).astype(np.float64)
            change = product(a, b, pair.scale).astype(np.float32)
            if transposed:
                change = change.T
            return ops.asarray(ops.numpy(weight) + change)

        return merge


def product(a: Array, b: Array, scale: float) -> Array:
    """a (rank, in), b (out, rank) -> scale b a (out, in)."""
    return (scale * b) @ a


def key_of(name: str, prefix: str) -> str:
    """A key for a tensor that is the same with and without the family's prefix."""
    return module_of(name).removeprefix(prefix)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and not a whole model.

    Raises CheckpointError if it cannot be read.
    """
    return is_adapter_of(list_files(folder))


def read_adapter(folder: Path) -> Adapter:
    """The adapter in a folder.

    Raises CheckpointError: a file is missing or damaged, or it is a variant that is not plain
    LoRA.
    """
    names = list_files(folder)
    if CONFIG not in names:
        raise CheckpointError(
            f"{folder} is not an adapter: it has no {CONFIG}; it {contents_of(names)}"
        )
    values = read_object(folder / CONFIG)
    refuse_variants(values, folder / CONFIG)
    if WEIGHTS not in names:
        raise CheckpointError(no_adapter_weights(names, str(folder)))
    base, revision = values.get("base_model_name_or_path") or "", values.get("revision")
    if not isinstance(base, str) or not isinstance(revision, str | None):
        raise CheckpointError(
            f"{folder / CONFIG}: base_model_name_or_path and revision must be strings"
        )
    if revision and not at_home(base).is_dir():
        base = f"{base}@{revision}"
    tensors = read_file(folder / WEIGHTS)
    fingerprint = read_metadata(folder / WEIGHTS).get(BASE_KEY, "")
    return Adapter(folder, base, fingerprint, read_pairs(tensors, values, folder))


def read_pairs(
    tensors: Mapping[str, TensorInfo], values: Mapping[str, Any], folder: Path
) -> dict[str, Pair]:
    """The pairs of matrices, by module. Raises CheckpointError for tensors that form none."""
    modules: dict[str, dict[str, TensorInfo]] = {}
    for name, info in tensors.items():
        match = re.fullmatch(re.escape(PREFIX) + r"(.+)\.lora_([AB])\.weight", name)
        if match is None or len(info.shape) != 2 or info.dtype not in stored_dtypes.FLOATS:
            raise CheckpointError(
                f"{folder / WEIGHTS} has {shown(name)}, {info.dtype} {info.shape}: "
                f"expected only float matrices {PREFIX}<module>.lora_A.weight and .lora_B.weight"
            )
        modules.setdefault(match[1], {})[match[2]] = info
    if not modules:
        raise CheckpointError(f"{folder / WEIGHTS} holds no tensors")
    pairs: dict[str, Pair] = {}
    matcher = Matcher()
    for module, halves in modules.items():
        check_halves(module, halves, folder)
        a, b = halves["A"], halves["B"]
        scale = scale_of(module, a.shape[0], values, folder / CONFIG, matcher)
        pairs[module] = Pair(a, b, scale)
    return pairs


def check_halves(module: str, halves: Mapping[str, TensorInfo], folder: Path) -> None:
    """Raises CheckpointError unless there are both matrices, and they have the same rank."""
    if len(halves) == 2 and 0 != halves["A"].shape[0] == halves["B"].shape[1]:
        return
    shapes = ", ".join(f"lora_{half} {info.shape}" for half, info in sorted(halves.items()))
    raise CheckpointError(
        f"{folder / WEIGHTS}: {module} has {shapes}: "
        "expected lora_A (rank, in) and lora_B (out, rank)"
    )
