"""Tensors that a model has no use for, seen before they are left out: a second head, and what it computes itself.

Checkpoints often store the embedding once more as the head, and old ones their causal masks and rotary frequencies. A
name does not say that they are such copies; their values do.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minigen.checkpoints.loading import listed
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
    """What config.json says of a model, and the architecture that it and the weights make.

    Where config.json ties the head to the embedding and the head that is stored is another matrix, the stored one
    counts, as in transformers: the config that is returned then says that they are not tied. A warning names that, and
    the masks and frequencies that are not what the model computes. `declared`: which weights are quantized.

    Raises CheckpointError as `Family.build` does, and where a file cannot be read.
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
                "%s ties the head to the embedding, but the stored %s is not %s: it is used as it is; say "
                '"%s": false there',
                where, head, embedding, config.one_of(*TIED_NAMES),
            )  # fmt: skip
            values, architecture = untied, other
    warn_of_buffers(family, architecture, tensors, folder)
    return dict(values), architecture


def is_copy(name: str, original: str, tensors: Mapping[str, TensorInfo], declared: Declared | None) -> bool:
    """Whether a matrix is not stored at all, or is stored as another one is, with the same numbers."""
    own, others = stored_names(name), stored_names(original)
    if not any(part in tensors for part in own):
        return True
    if any((part in tensors) != (other in tensors) for part, other in zip(own, others, strict=True)):
        return False
    quantized = own[1] in tensors
    if quantized and declared is not None and declared.of(module_of(name)) != declared.of(module_of(original)):
        return False
    pairs = [(tensors[part], tensors[other]) for part, other in zip(own, others, strict=True) if part in tensors]
    return all(same_values(tensor, other) for tensor, other in pairs)


def warn_of_buffers(
    family: Family, architecture: Architecture, tensors: Mapping[str, TensorInfo], folder: Path
) -> None:
    """Warns of stored masks, frequencies and the like that are not what the model computes in their place."""
    for pattern, buffer in family.ignored.items():
        stored = [name for name in tensors if re.fullmatch(pattern, name.removeprefix(family.prefix))]
        other = [name for name in stored if not buffer.is_same(architecture, tensors[name])]
        if other:
            log.warning("%s holds %s: not %s, which is what counts", folder, listed(other), buffer.computed)
