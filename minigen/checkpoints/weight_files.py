"""Which of a model's files hold its weights, by their names and the index.

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
# As PEFT names them.
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
EXPECTED = f"{SINGLE}, or {INDEX} and the files it names"

LONG_NAME = 256  # characters; file systems allow no more

_SHARD = re.compile(r"-\d{5}-of-(?!00001)\d{5}\.safetensors$")


def pick_weights(names: Iterable[str]) -> str | None:
    """The file to start from, or None.

    It is the single file, else the index, else the only `*.safetensors`. Files in subfolders do not
    count, and a lone shard is not a whole model.
    """
    top = [name for name in names if "/" not in name]
    for name in (SINGLE, INDEX):
        if name in top:
            return name
    others = [name for name in top if name.endswith(".safetensors")]
    if len(others) == 1 and not _SHARD.search(others[0]):
        return others[0]
    return None


def is_adapter_of(names: Iterable[str]) -> bool:
    """Whether files of these names are an adapter and not a whole model."""
    present = set(names)
    return ADAPTER_CONFIG in present and present.isdisjoint((SINGLE, INDEX))


def no_adapter_weights(names: Iterable[str], source: str) -> str:
    """The message for an adapter without ADAPTER_WEIGHTS: why, and what to do."""
    for name in names:
        if name.startswith("adapter_model") and name.endswith(PICKLES):
            return (
                f"{source} has no {ADAPTER_WEIGHTS}; it has the adapter's weights only as a pickle "
                f"({name}), which can run code: save it as safetensors"
            )
    return f"{source} has no {ADAPTER_WEIGHTS}, so it has no weights of the adapter"


def no_weights(names: Iterable[str], source: str) -> str:
    """The message if `pick_weights` finds nothing: why, and what to do."""
    top = sorted(name for name in names if "/" not in name)
    shards = [name for name in top if name.endswith(".safetensors")]
    if shards:
        listed = abbreviate(shards)
        return f"{source} has {listed}, but which to read is unclear: expected {EXPECTED}"
    pickles = [name for name in top if name.endswith(PICKLES)]
    if pickles:
        return (
            f"{source} has its weights only as pickles ({abbreviate(pickles)}), which can run code "
            "when loaded, so minigen reads only safetensors: look for a revision with them, such "
            "as refs/pr/N, or, if you trust the model, load it in transformers and convert it with "
            "save_pretrained()"
        )
    gguf = [name for name in top if name.endswith(".gguf")]
    if gguf:
        listed = abbreviate(gguf)
        return f"{source} has only GGUF weights ({listed}): use the original model, in safetensors"
    return f"{source} has no weights (expected {EXPECTED}); it {contents_of(top)}"


def abbreviate(names: list[str]) -> str:
    """The first names of a list and how many more there are, in one line, whatever the names."""
    printable = []
    for name in names:
        if not name.isprintable() or len(name) > LONG_NAME:
            name = shown(name, LONG_NAME)
        printable.append(name)
    return first_of(printable, 4)


def contents_of(names: list[str]) -> str:
    """ "has a, b" or "is empty": the second half of a message about a folder."""
    if not names:
        return "is empty"
    return f"has {abbreviate(names)}"


def list_files(folder: Path) -> list[str]:
    """The sorted names of the files in a folder; broken symlinks are skipped.

    Raises CheckpointError: it is not a folder, or cannot be read.
    """
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"no such folder: {folder}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {folder}: {error.strerror}") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises CheckpointError: it cannot be read, is not UTF-8, not JSON, not an object, or too
    large.
    """
    try:
        return parse_object(read_bytes(path))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None


def read_index(path: Path) -> dict[str, str]:
    """The weight map of an index: the file name of the shard for each tensor name.

    Raises CheckpointError: as `read_object`, or the map is missing, empty, or has other values.
    """
    weight_map = read_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            f'{path}: "weight_map" must be an object with the file name of each tensor'
        )
    for tensor, shard in weight_map.items():
        if not _is_shard_name(shard):
            raise CheckpointError(
                f"{path} names {shown(shard)} for {shown(tensor)}, which is not the name of a "
                "safetensors file"
            )
    return weight_map


def _is_shard_name(name: Any) -> bool:
    """Whether it is a file name and not a path, which could lead out of the folder."""
    if not isinstance(name, str) or not name.isprintable() or not name.endswith(".safetensors"):
        return False
    return "/" not in name and "\\" not in name
