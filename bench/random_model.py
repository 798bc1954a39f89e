"""Models with random weights: in memory, or as a checkpoint, in a known shape."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minigen.backends.base import Backend
from minigen.checkpoints.saving import to_tensors, write_tensors
from minigen.checkpoints.weight_files import SINGLE
from minigen.families import build_architecture, find_family
from minigen.generation.reader import Runner
from minigen.layers.param import as_arrays, initialise
from minigen.tree import flatten, unflatten


def random_runner(ops: Backend, config: Mapping[str, Any]) -> Runner:
    architecture = build_architecture(config)
    return Runner(ops, architecture, as_arrays(ops, initialise(architecture.shapes())))


def write_random(
    folder: Path, config: Mapping[str, Any], dtype: str = "float32", scale: float = 1
) -> Path:
    """A new checkpoint. `scale` multiplies all but norms: with 8 of it texts have no obvious pattern."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    architecture = build_architecture(config)
    drawn = flatten(initialise(architecture.shapes()))
    scaled = {path: x if "norm" in path else scale * x for path, x in drawn.items()}
    write_tensors(
        folder / SINGLE, to_tensors(architecture, find_family(config), unflatten(scaled)), dtype
    )
    return folder
