"""What adapter_config.json says: whether an adapter is plain LoRA, and the scale of each pair."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minigen.errors import CheckpointError, shown
from minigen.reading.patterns import Matcher

# Keys of adapter_config.json that do not change W + scale B A. `r` and its pattern follow from the
# shapes of A and B.
HARMLESS = {
    "peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
    "inference_mode", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora",
    "lora_dropout", "fan_in_fan_out", "init_lora_weights", "target_modules", "exclude_modules",
    "layers_to_transform", "layers_pattern", "megatron_core", "loftq_config", "eva_config",
    "corda_config", "lora_ga_config", "qalora_group_size", "ensure_weight_tying", "runtime_config",
}  # fmt: skip
MOST_ALPHA = 1e30
# Values of init_lora_weights that leave the base as it is.
INITIALIZATIONS = (True, False, None, "gaussian", "eva", "orthogonal")


def refuse_variants(values: Mapping[str, Any], path: Path) -> None:
    """Raises CheckpointError for an adapter that is not plain LoRA."""
    for name, value in ordered_settings(values).items():
        if is_plain_lora(name, value):
            continue
        raise CheckpointError(
            f"{path}: {name} is {value!r:.60}: minigen reads plain LoRA adapters; "
            "merge this one with PEFT (merge_and_unload, then save_pretrained)"
        )


def ordered_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an adapter, those that say what it is first."""
    first = {
        "peft_type": values.get("peft_type"),
        "init_lora_weights": values.get("init_lora_weights", True),
    }
    return {**first, **values}


def is_plain_lora(name: str, value: Any) -> bool:
    """Whether a setting leaves an adapter plain LoRA."""
    if name == "peft_type":
        return bool(value == "LORA")
    if name == "init_lora_weights":
        return value in INITIALIZATIONS
    return name in HARMLESS or value in (None, False, {}, [], "", "none")


def scale_of(
    module: str, rank: int, values: Mapping[str, Any], path: Path, matcher: Matcher
) -> float:
    """alpha / rank, or alpha / sqrt(rank) (Kalajdzievski 2023).

    Raises CheckpointError if `r` is not the rank, or alpha is not a number.
    """
    alpha = patterned(module, values, "lora_alpha", "alpha_pattern", path, matcher)
    stated_rank = patterned(module, values, "r", "rank_pattern", path, matcher)
    is_number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
    if not is_number or not abs(alpha) < MOST_ALPHA:
        raise CheckpointError(f"{path}: alpha of {module} is {shown(alpha)}: it must be a number")
    if stated_rank is not None and stated_rank != rank:
        raise CheckpointError(
            f"{path}: r of {module} is {shown(stated_rank)}, but its matrices have rank {rank}: "
            "one of the two files is from another adapter"
        )
    by_root = values.get("use_rslora") or False
    if not isinstance(by_root, bool):
        raise CheckpointError(f"{path}: use_rslora is {shown(by_root)}: it must be true or false")
    if by_root:
        return float(alpha / math.sqrt(rank))
    return float(alpha / rank)


def patterned(
    module: str,
    values: Mapping[str, Any],
    key: str,
    pattern_key: str,
    path: Path,
    matcher: Matcher,
) -> Any:
    """A setting of one module.

    As in PEFT it is that of the first pattern that matches the end of the module's name, else
    that of all modules.
    """
    patterns = values.get(pattern_key) or {}

    def fault() -> CheckpointError:
        return CheckpointError(
            f"{path}: {pattern_key} is {shown(patterns)}: it must map names to numbers"
        )

    if not isinstance(patterns, Mapping):
        raise fault()
    for pattern, value in patterns.items():
        try:
            if matcher.begins(rf"(.*\.)?({pattern})$", module):
                return value
        except ValueError:
            raise fault() from None
        except TimeoutError as error:
            raise CheckpointError(
                f"{path}: {pattern_key} has {shown(pattern)}: {error}: name the modules"
            ) from None
    return values.get(key)
