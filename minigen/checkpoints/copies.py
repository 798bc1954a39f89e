"""Stored tensors that a model does not need: a copy of the embedding, and what it computes itself.

Checkpoints often store the embedding again as the head, and old ones store causal masks and rotary
frequencies. Their names do not prove that they are such copies, so their values are compared before
they are left out.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minigen.checkpoints.fitting import listed
from minigen.checkpoints.plan import plan, unused_names
from minigen.checkpoints.quantization import Declared
from minigen.families.config import TIED_NAMES, HubConfig, without_tie
from minigen.families.family import Family
from minigen.families.stored import same_values
from minigen.models.architecture import Architecture
from minigen.models.packing import module_of, stored_names
from minigen.models.tensor_info import TensorInfo

EMBEDDING, HEAD = "embedding.weight", "head.weight"  # their paths in the parameter tree

log = logging.getLogger("minigen")


def build_as_stored(
    family: Family,
    values: Mapping[str, Any],
    tensors: Mapping[str, TensorInfo],
    folder: Path,
    declared: Declared | None = None,
) -> tuple[dict[str, Any], Architecture]:
    """The architecture of a stored model.

    If config.json ties the head to the embedding, but the stored head is a different matrix, the
    stored head is used, as in transformers, with a warning. There is also a warning for masks and
    frequencies that differ from what the model computes.

    Args:
        family: The family of the model.
        values: Its config.json.
        tensors: Its tensors, by name.
        folder: Its folder.
        declared: Which of the weights are quantized.

    Returns:
        config.json, which does not tie the head if another one is stored, and the architecture.

    Raises CheckpointError: the config cannot be used, or a file cannot be read.
    """
    where = str(folder / "config.json")
    config = HubConfig(values, where)
    architecture = family.build(config)
    for warning in dict.fromkeys(config.warnings):
        log.warning("%s", warning)
    if unused_names(architecture, family):
        untied = without_tie(values)
        other = family.build(HubConfig(untied, where))
        names = {entry.path: entry.pieces[0].name for entry in plan(other, family, tensors)}
        head, embedding = names[HEAD], names[EMBEDDING]
        if not is_copy(head, embedding, tensors, declared):
            log.warning(
                "%s ties the head to the embedding, but the stored %s is not %s: using the stored "
                'one; write "%s": false there',
                where,
                head,
                embedding,
                config.one_of(*TIED_NAMES),
            )
            values, architecture = untied, other
    warn_of_buffers(family, architecture, tensors, folder)
    return dict(values), architecture


def is_copy(
    name: str, original: str, tensors: Mapping[str, TensorInfo], declared: Declared | None
) -> bool:
    """Whether a matrix is not stored at all, or is stored exactly as another one."""
    own_parts, original_parts = stored_names(name), stored_names(original)
    if not any(part in tensors for part in own_parts):
        return True
    pairs = []
    for own, other in zip(own_parts, original_parts, strict=True):
        if (own in tensors) != (other in tensors):
            return False
        if own in tensors:
            pairs.append((tensors[own], tensors[other]))
    if declared is not None and own_parts[1] in tensors:  # quantized
        own_packing, other_packing = declared.of(module_of(name)), declared.of(module_of(original))
        if own_packing != other_packing:
            return False
    return all(same_values(own_tensor, other_tensor) for own_tensor, other_tensor in pairs)


def warn_of_buffers(
    family: Family, architecture: Architecture, tensors: Mapping[str, TensorInfo], folder: Path
) -> None:
    """Warns of stored masks and frequencies that differ from what the model computes."""
    for pattern, buffer in family.ignored.items():
        different = []
        for name, tensor in tensors.items():
            is_buffer = re.fullmatch(pattern, name.removeprefix(family.prefix)) is not None
            if is_buffer and not buffer.is_same(architecture, tensor):
                different.append(name)
        if different:
            log.warning(
                "%s has %s with other values than %s: using the latter",
                folder,
                listed(different),
                buffer.computed,
            )
