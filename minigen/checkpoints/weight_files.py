"""Which of a model's files hold its weights: told from their names and the index, before a tensor is read.

A folder and a hub listing are judged by the same rules, so `checkpoint` and `hub` share this file.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from minigen.errors import CheckpointError, first_of, shown
from minigen.reading import parse_object, read_bytes

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # as PEFT calls them
EXPECTED = f"{SINGLE}, or {INDEX} and the files that it names"

LONG_NAME = 256  # characters: what a file system takes

_SHARD = re.compile(r"-\d{5}-of-(?!00001)\d{5}\.safetensors$")


def pick_weights(names: Iterable[str]) -> str | None:
    """The name to start from: the single file, else the index, else the only `*.safetensors`, else None.

    Names with a folder are no candidates, and a lone shard is not taken for a whole model.
    """
    top = [name for name in names if "/" not in name]
    for name in (SINGLE, INDEX):
        if name in top:
            return name
    others = [name for name in top if name.endswith(".safetensors")]
    return others[0] if len(others) == 1 and not _SHARD.search(others[0]) else None


def is_adapter_of(names: Iterable[str]) -> bool:
    """Whether files of these names are an adapter and no whole model."""
    there = set(names)
    return ADAPTER_CONFIG in there and there.isdisjoint((SINGLE, INDEX))


def no_adapter_weights(names: Iterable[str], place: str) -> str:
    """The message for an adapter without ADAPTER_WEIGHTS: why, and the way out."""
    pickles = [name for name in names if name.startswith("adapter_model") and name.endswith(PICKLES)]
    what = f"only as a pickle ({pickles[0]}), which can run code: save it as safetensors" if pickles else "none"
    return f"{place} has no {ADAPTER_WEIGHTS}; the weights of the adapter are there {what}"


def no_weights(names: Iterable[str], place: str) -> str:
    """The message for names where `pick_weights` finds nothing: why, and the way out."""
    top = sorted(name for name in names if "/" not in name)

    def ending(*suffixes: str) -> list[str]:
        return [name for name in top if name.endswith(suffixes)]

    if shards := ending(".safetensors"):
        return f"{place} has {some(shards)}, but which to read is unclear: expected {EXPECTED}"
    if pickles := ending(*PICKLES):
        return (
            f"{place} has its weights only as pickles ({some(pickles)}), which can run code when loaded, so "
            "minigen reads only safetensors: look for a revision with them, such as refs/pr/N, or, where you "
            "trust the model, load it in transformers and convert it with save_pretrained()"
        )
    if gguf := ending(".gguf"):
        return f"{place} has only GGUF weights ({some(gguf)}): give the original model, in safetensors"
    return f"{place} has no weights (expected {EXPECTED}); it {holds(top)}"


def some(names: list[str]) -> str:
    """The first names of a list, and how many more there are; in one line, whatever the files are called."""
    harmless = [name if name.isprintable() and len(name) <= LONG_NAME else shown(name, LONG_NAME) for name in names]
    return first_of(harmless, 4)


def holds(names: list[str]) -> str:
    """ "has a, b" or "is empty": the second half of a message about a folder."""
    return f"has {some(names)}" if names else "is empty"


def files_in(folder: Path) -> list[str]:
    """The sorted names of the files in a folder; a link to nowhere is none. Raises CheckpointError."""
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"no such folder: {folder}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {folder}: {error.strerror}") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises CheckpointError if unreadable, not UTF-8, not JSON, no object,
    or too large."""
    try:
        return parse_object(read_bytes(path))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None


def read_index(path: Path) -> dict[str, str]:
    """The weight map of an index: tensor name -> shard name, all of them plain file names.

    Raises CheckpointError as `read_object`, or if the map is missing, empty, or names something else.
    """
    weight_map = read_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f'{path}: no "weight_map" object that names the file of each tensor')
    for tensor, shard in weight_map.items():
        # A path could lead out of the folder; the shards always lie beside the index.
        plain = isinstance(shard, str) and shard.isprintable() and "/" not in shard and "\\" not in shard
        if not plain or not shard.endswith(".safetensors"):
            raise CheckpointError(f"{path} names {shown(shard)} for {shown(tensor)}, no name of a safetensors file")
    return weight_map
