"""What a model folder holds, without a framework: its config and the headers of its weights.

Nothing here reads a tensor. What passes these checks is safe to give to a framework's own loader:
MLX's accepts files with overlapping tensors, holes or bytes left over, so the checks guard both.
"""

import os
from pathlib import Path
from typing import Any

from minigen.checkpoints.weight_files import (
    INDEX,
    abbreviate,
    contents_of,
    list_files,
    no_weights,
    pick_weights,
    read_index,
    read_object,
)
from minigen.errors import CheckpointError, shown
from minigen.models.tensor_info import TensorInfo
from minigen.reading import parse_object

# Bytes, enough for 100,000 tensors and more; the format's own limit takes 2 GB of memory to read.
_MAX_HEADER = 16 * 2**20


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json.

    Raises CheckpointError: it is missing, or not one JSON object in UTF-8.
    """
    names = list_files(folder)
    if "config.json" not in names:
        hint = ""
        if "adapter_config.json" in names:
            hint = ": an adapter is not a whole model"
        raise CheckpointError(f"{folder} has no config.json; it {contents_of(names)}{hint}")
    return read_object(folder / "config.json")


def read_headers(folder: Path) -> dict[str, TensorInfo]:
    """All tensors of the folder's safetensors file or files, by name, of any dtype.

    Raises CheckpointError: there are no weights that minigen reads, a file is missing or
    damaged, or the index and its files disagree.
    """
    names = list_files(folder)
    first = pick_weights(names)
    if first is None:
        raise CheckpointError(no_weights(names, str(folder)))
    tensors = (
        _read_shards(folder, read_index(folder / INDEX), names)
        if first == INDEX
        else read_file(folder / first)
    )
    if not tensors:
        raise CheckpointError(f"{folder / first} holds no tensors")
    return tensors


def _read_shards(
    folder: Path, weight_map: dict[str, str], names: list[str]
) -> dict[str, TensorInfo]:
    """The tensors of every file that the index names, which must be exactly those it lists."""
    index = folder / INDEX
    shards = sorted(set(weight_map.values()))
    missing = [shard for shard in shards if shard not in names]
    if missing:
        raise CheckpointError(
            f"{index} names {abbreviate(missing)}, not in the folder: download the whole model"
        )
    tensors: dict[str, TensorInfo] = {}
    for shard in shards:
        for name, info in read_file(folder / shard).items():
            if name in tensors:
                first = tensors[name].file
                raise CheckpointError(f"{first} and {info.file} both hold the tensor {name!r}")
            tensors[name] = info
    # A tensor that some readers would load and others not would make two models of one folder.
    for name, shard in weight_map.items():
        if name not in tensors or tensors[name].file.name != shard:
            raise CheckpointError(
                f"{index} places the tensor {name!r} in {shard}, which does not hold it"
            )
    extra = [name for name in tensors if name not in weight_map]
    if extra:
        quoted = abbreviate([repr(name) for name in extra])
        raise CheckpointError(f"{tensors[extra[0]].file} holds {quoted}, not in {INDEX}")
    return tensors


def read_file(path: Path) -> dict[str, TensorInfo]:
    """The tensors of one safetensors file.

    Raises CheckpointError: it cannot be read, or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        header, size = _raw_header(path)
        # Refuses duplicate names, which the library accepts if both tensors have the same bytes.
        entries = _entries(header)
        data_start = 8 + len(header)
        end = data_start
        for entry in entries.values():
            end = max(end, data_start + entry["data_offsets"][1])
        if end > size:
            raise _damaged(path, f"truncated, {size} of {end} bytes")
        # The library checks the rest: dtypes, sizes, and that tensors cover the file exactly.
        with safe_open(str(path), framework="np"):
            pass
    except SafetensorError as error:
        reason = str(error).removeprefix("Error while deserializing header: ")
        raise _damaged(path, " ".join(reason.split())) from error
    except ValueError as error:
        raise _damaged(path, f"header: {error}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    tensors = {}
    for name, entry in entries.items():
        start = data_start + entry["data_offsets"][0]
        tensors[name] = TensorInfo(name, entry["dtype"], tuple(entry["shape"]), path, start)
    return tensors


def read_metadata(path: Path) -> dict[str, str]:
    """The free-form metadata of a safetensors file that `read_file` has accepted."""
    header, _ = _raw_header(path)
    return dict(parse_object(header).get("__metadata__") or {})


def _raw_header(path: Path) -> tuple[bytes, int]:
    """The header and the size of the file. The header's stated length is checked first."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(40)
        if start.startswith(b"version https://git-lfs"):
            raise CheckpointError(f"{path} is a Git LFS pointer, not the weights: run git lfs pull")
        if size < 8:
            raise _damaged(path, f"truncated, {size} bytes")
        length = int.from_bytes(start[:8], "little")
        if length > size - 8:
            raise _damaged(path, f"a header of {length} bytes in a file of {size}")
        if length > _MAX_HEADER:
            raise CheckpointError(
                f"{path} has a header of {length} bytes: minigen reads up to {_MAX_HEADER}"
            )
        file.seek(8)
        return file.read(length), size


def _entries(header: bytes) -> dict[str, dict[str, Any]]:
    """What a header says about each tensor.

    Raises ValueError unless that is a dtype, a shape and two offsets by name. The library accepts
    other spellings too, such as a list of the three.
    """
    entries = parse_object(header)
    entries.pop("__metadata__", None)
    for name, entry in entries.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
            raise ValueError(f"{shown(name)} is {shown(entry)}")
        shape, offsets = entry.get("shape"), entry.get("data_offsets")
        if not _whole_numbers(shape) or not _whole_numbers(offsets, 2):
            raise ValueError(
                f"{shown(name)} has the shape {shown(shape)} and the offsets {shown(offsets)}"
            )
    return entries


def _whole_numbers(value: Any, count: int | None = None) -> bool:
    """Whether it is a list of whole numbers >= 0, with `count` of them if that is given."""
    if not isinstance(value, list) or count not in (None, len(value)):
        return False
    return all(type(number) is int and number >= 0 for number in value)


def _damaged(path: Path, fault: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a safetensors file, or is damaged ({fault}): download it again"
    )
