"""The ids that end a text, as a model's files declare them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minigen.checkpoints.opening import generation_file
from minigen.checkpoints.weight_files import read_object
from minigen.errors import CheckpointError, shown


def declared_stop_ids(folder: Path, base: Path, config: Mapping[str, Any]) -> set[int]:
    """The eos_token_id of generation_config.json and of config.json, each an id or a list of ids.

    Args:
        folder: The folder that was asked for.
        base: The folder of the model, which for an adapter is another one.
        config: The content of config.json.

    Raises CheckpointError if generation_config.json is damaged or an eos_token_id is neither.
    """
    path = generation_file(folder, base)
    ids: set[int] = set()
    if path.is_file():
        ids |= eos_token_ids(read_object(path), path)
    return ids | eos_token_ids(config, base / "config.json")


def eos_token_ids(values: Mapping[str, Any], path: Path) -> set[int]:
    """The ids under "eos_token_id" in the values of a file; none if it is missing or null.

    Raises CheckpointError if it has another type.
    """
    value = values.get("eos_token_id")
    if value is None:
        return set()
    ids = [value]
    if isinstance(value, list):
        ids = value
    if not all(type(i) is int for i in ids):  # True is an int too
        raise CheckpointError(
            f"{path}: eos_token_id is {shown(value)}: it must be an id or a list of ids"
        )
    return set(ids)
