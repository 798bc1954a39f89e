"""LoRA adapters (Hu et al. 2021) as PEFT stores them: two small matrices for each weight that they change.

adapter_config.json            the model that it belongs to, alpha, and which of PEFT's variants it is
adapter_model.safetensors      base_model.model.<module>.lora_A.weight (rank, in) and .lora_B.weight (out, rank)

Merged, a weight W (out, in) is W + scale B A. Variants that are not this are refused by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minigen.backends.base import Array, Backend
from minigen.checkpoints.checkpoint import read_file, read_metadata
from minigen.checkpoints.hub import resolve
from minigen.checkpoints.weight_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    files_in,
    holds,
    is_adapter_of,
    no_adapter_weights,
    read_object,
    some,
)
from minigen.errors import CheckpointError, SourceError, shown
from minigen.models import stored_dtypes
from minigen.models.packing import module_of
from minigen.models.tensor_info import TensorInfo
from minigen.reading import at_home
from minigen.reading.patterns import Matcher

CONFIG, WEIGHTS = ADAPTER_CONFIG, ADAPTER_WEIGHTS
PREFIX = "base_model.model."  # of every name: PEFT's own two wrappers
BASE_KEY = "minigen_base"  # in the metadata of the weights: the fingerprint of the model that it was trained on

# What adapter_config.json may say without changing W + scale B A. `r` and its pattern are the shapes of A and B.
HARMLESS = {
    "peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "lora_dropout", "fan_in_fan_out",
    "init_lora_weights", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "megatron_core",
    "loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size", "ensure_weight_tying",
    "runtime_config",
}  # fmt: skip
LARGEST = 1e30  # of an alpha
STARTS = (True, False, None, "gaussian", "eva", "orthogonal")  # the others change the base too


@dataclass(frozen=True)
class Pair:
    """What is added to one weight: scale B (out, rank) A (rank, in)."""

    a: TensorInfo
    b: TensorInfo
    scale: float


@dataclass(frozen=True)
class Adapter:
    """`base`: the model that it names, a folder or a hub id; `fingerprint`: of that model's files, "" if unknown."""

    folder: Path
    base: str
    fingerprint: str
    pairs: Mapping[str, Pair]  # by module, as transformers names it

    def base_folder(self, *, offline: bool = False) -> Path:
        """Raises SourceError where the model is not there, CheckpointError where it is an adapter too."""
        mend = f"correct base_model_name_or_path in its {CONFIG}, or name the model: minigen convert MODEL OUT --lora"
        if not self.base:
            raise SourceError(f"the adapter {self.folder} does not say which model it belongs to: {mend}")
        try:
            found = resolve(self.base, offline=offline)
        except SourceError as error:
            raise SourceError(f"the model of the adapter {self.folder} cannot be had ({error}): {mend}") from error
        if is_adapter(found):
            raise CheckpointError(f"the adapter {self.folder} belongs to {found}, an adapter too: {mend}")
        return found

    def keyed(self, prefix: str) -> dict[str, Pair]:
        """The pairs by `key_of` their weights."""
        return {module.removeprefix(prefix): pair for module, pair in self.pairs.items()}

    def check(self, shapes: Mapping[str, Sequence[int]], prefix: str, where: Path) -> None:
        """`shapes`: (out, in) of every weight by `key_of`. Raises CheckpointError for pairs that fit none of them."""
        keyed = self.keyed(prefix)
        unknown = [key for key in keyed if len(shapes.get(key, ())) != 2]
        wrong = [
            f"{key} is {found}, the model's is {tuple(shapes[key])}"
            for key, pair in keyed.items()
            if key not in unknown and (found := (pair.b.shape[0], pair.a.shape[1])) != tuple(shapes[key])
        ]
        faults = [f"the model has no weight {some(unknown)}"] if unknown else []
        if faults or wrong:
            raise CheckpointError(
                f"the adapter {self.folder} does not fit {where}: {'; '.join(faults + wrong[:4])}: it was made for "
                "another model"
            )

    def merger(self, ops: Backend, prefix: str) -> Callable[[str, bool, Array], Array]:
        """(name of a stored weight, whether it is stored (in, out), the weight) -> the weight, merged.

        Computed on the host, in float64 and then rounded to float32, so that it is the same on every backend.
        """
        stored, keyed = ops.load(self.folder / WEIGHTS), self.keyed(prefix)

        def merged(name: str, transposed: bool, weight: Array) -> Array:
            pair = keyed.get(key_of(name, prefix))
            if pair is None:
                return weight
            a, b = (ops.numpy(stored[info.name]).astype(np.float64) for info in (pair.a, pair.b))
            change = product(a, b, pair.scale).astype(np.float32)
            return ops.asarray(ops.numpy(weight) + (change.T if transposed else change))

        return merged


def product(a: Array, b: Array, scale: float) -> Array:
    """a (rank, in), b (out, rank) -> scale b a (out, in)."""
    return (scale * b) @ a


def key_of(name: str, prefix: str) -> str:
    """The same for a tensor whether or not its checkpoint has its family's prefix."""
    return module_of(name).removeprefix(prefix)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no whole model. Raises CheckpointError where it cannot be read."""
    return is_adapter_of(files_in(folder))


def read_adapter(folder: Path) -> Adapter:
    """Raises CheckpointError for a file that is missing or damaged, and for a variant that is no plain LoRA."""
    names = files_in(folder)
    if CONFIG not in names:
        raise CheckpointError(f"{folder} is no adapter: it has no {CONFIG}; it {holds(names)}")
    values = read_object(folder / CONFIG)
    refuse_variants(values, folder / CONFIG)
    if WEIGHTS not in names:
        raise CheckpointError(no_adapter_weights(names, str(folder)))
    base, revision = values.get("base_model_name_or_path") or "", values.get("revision")
    if not isinstance(base, str) or not isinstance(revision, str | None):
        raise CheckpointError(f"{folder / CONFIG}: base_model_name_or_path and revision must be texts")
    if revision and not at_home(base).is_dir():
        base = f"{base}@{revision}"
    tensors = read_file(folder / WEIGHTS)
    known = read_metadata(folder / WEIGHTS).get(BASE_KEY, "")
    return Adapter(folder, base, known, read_pairs(tensors, values, folder))


def refuse_variants(values: Mapping[str, Any], path: Path) -> None:
    faults = {} if values.get("peft_type") == "LORA" else {"peft_type": values.get("peft_type")}
    if values.get("init_lora_weights", True) not in STARTS:
        faults["init_lora_weights"] = values["init_lora_weights"]
    for name, value in values.items():
        if name not in HARMLESS and value not in (None, False, {}, [], "", "none"):
            faults[name] = value
    if faults:
        name, value = next(iter(faults.items()))
        raise CheckpointError(
            f"{path}: {name} is {value!r:.60}: minigen reads plain LoRA adapters; merge this one with PEFT "
            "(merge_and_unload, then save_pretrained)"
        )


def read_pairs(tensors: Mapping[str, TensorInfo], values: Mapping[str, Any], folder: Path) -> dict[str, Pair]:
    found: dict[str, dict[str, TensorInfo]] = {}
    for name, info in tensors.items():
        match = re.fullmatch(re.escape(PREFIX) + r"(.+)\.lora_([AB])\.weight", name)
        if match is None or len(info.shape) != 2 or info.dtype not in stored_dtypes.FLOATS:
            raise CheckpointError(
                f"{folder / WEIGHTS} has {shown(name)}, {info.dtype} {info.shape}: expected float matrices called "
                f"{PREFIX}<module>.lora_A.weight and .lora_B.weight alone"
            )
        found.setdefault(match[1], {})[match[2]] = info
    if not found:
        raise CheckpointError(f"{folder / WEIGHTS} holds no tensors")
    pairs, matcher = dict[str, Pair](), Matcher()
    for module, halves in found.items():
        if len(halves) < 2 or halves["A"].shape[0] != halves["B"].shape[1] or not halves["A"].shape[0]:
            shapes = ", ".join(f"lora_{half} {info.shape}" for half, info in sorted(halves.items()))
            raise CheckpointError(
                f"{folder / WEIGHTS}: {module} has {shapes}: expected lora_A (rank, in) and lora_B (out, rank)"
            )
        scale = scale_of(module, halves["A"].shape[0], values, folder / CONFIG, matcher)
        pairs[module] = Pair(halves["A"], halves["B"], scale)
    return pairs


def scale_of(module: str, rank: int, values: Mapping[str, Any], path: Path, matcher: Matcher) -> float:
    """alpha / rank, or alpha / sqrt(rank) (Kalajdzievski 2023). Raises CheckpointError where `r` is not the rank."""
    alpha = patterned(module, values, "lora_alpha", "alpha_pattern", path, matcher)
    said = patterned(module, values, "r", "rank_pattern", path, matcher)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) < LARGEST:
        raise CheckpointError(f"{path}: alpha of {module} is {shown(alpha)}: it must be a number")
    if said is not None and said != rank:
        raise CheckpointError(
            f"{path}: r of {module} is {shown(said)}, and its matrices have the rank {rank}: one of the two "
            "files is of another adapter"
        )
    by_root = values.get("use_rslora") or False
    if not isinstance(by_root, bool):
        raise CheckpointError(f"{path}: use_rslora is {shown(by_root)}: it must be true or false")
    return alpha / math.sqrt(rank) if by_root else alpha / rank


def patterned(module: str, values: Mapping[str, Any], key: str, pattern_key: str, path: Path, matcher: Matcher) -> Any:
    """A setting of one module: by the first pattern that ends its name, as in PEFT, else the one of all modules."""
    patterns = values.get(pattern_key) or {}
    if not isinstance(patterns, Mapping):
        raise CheckpointError(f"{path}: {pattern_key} is {shown(patterns)}: it must map names to numbers")
    for pattern, value in patterns.items():
        try:
            if matcher.begins(rf"(.*\.)?({pattern})$", module):
                return value
        except ValueError:
            raise CheckpointError(f"{path}: {pattern_key} is {shown(patterns)}: it must map names to numbers") from None
        except TimeoutError as error:
            raise CheckpointError(f"{path}: {pattern_key} has {shown(pattern)}: {error}: name the modules") from None
    return values.get(key)
