"""What a model folder holds, before any framework is involved: its config and the headers of its weights.

Nothing here reads a tensor. What passes here is safe to hand to a framework's own loader: MLX's accepts
files with overlapping tensors, holes or bytes left over, so these checks are the guard for both.
"""

import os
from pathlib import Path
from typing import Any

from minigen.checkpoints.gguf.folder import WEIGHTS, infos
from minigen.checkpoints.weight_files import (
    INDEX,
    files_in,
    holds,
    no_weights,
    pick_weights,
    read_index,
    read_object,
    some,
)
from minigen.errors import CheckpointError, shown
from minigen.models.tensor_info import TensorInfo
from minigen.reading import parse_object

FLOAT_DTYPES = ("F32", "F16", "BF16")

_MAX_HEADER = 16 * 2**20  # bytes: 100,000 tensors and more; the format's own limit takes 2 GB of memory to read


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json. Errors: CheckpointError if it is missing or not one JSON object in UTF-8."""
    names = files_in(folder)
    if "config.json" not in names:
        adapter = ": an adapter is not a whole model" if "adapter_config.json" in names else ""
        raise CheckpointError(f"{folder} has no config.json; it {holds(names)}{adapter}")
    return read_object(folder / "config.json")


def read_headers(folder: Path) -> dict[str, TensorInfo]:
    """All tensors of the folder's safetensors file or files, by name, of whatever dtype.

    Errors: CheckpointError if there are no weights that minigen reads, a file is missing or damaged, or the
    index and its files disagree.
    """
    names = files_in(folder)
    if WEIGHTS in names:
        return infos(folder, read_config(folder))
    start = pick_weights(names)
    if start is None:
        raise CheckpointError(no_weights(names, str(folder)))
    tensors = _read_shards(folder, read_index(folder / INDEX), names) if start == INDEX else read_file(folder / start)
    if not tensors:
        raise CheckpointError(f"{folder / start} holds no tensors")
    return tensors


def _read_shards(folder: Path, weight_map: dict[str, str], names: list[str]) -> dict[str, TensorInfo]:
    """The tensors of every file that the index names, which must be exactly those that it lists."""
    index = folder / INDEX
    shards = sorted(set(weight_map.values()))
    if missing := [shard for shard in shards if shard not in names]:
        raise CheckpointError(f"{index} names {some(missing)}, not in the folder: download the whole model")
    found: dict[str, TensorInfo] = {}
    for shard in shards:
        for name, info in read_file(folder / shard).items():
            if name in found:
                raise CheckpointError(f"{found[name].file} and {info.file} both hold the tensor {name!r}")
            found[name] = info
    # A tensor that one reader takes and another does not makes two models of one folder: refuse both ways.
    for name, shard in weight_map.items():
        if name not in found or found[name].file.name != shard:
            raise CheckpointError(f"{index} places the tensor {name!r} in {shard}, which does not hold it")
    if extra := [name for name in found if name not in weight_map]:
        raise CheckpointError(f"{found[extra[0]].file} holds {some(list(map(repr, extra)))}, not in {INDEX}")
    return found


def read_file(path: Path) -> dict[str, TensorInfo]:
    """The tensors of one safetensors file. Errors: CheckpointError if it is unreadable or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        header, size = _raw_header(path)
        # Refuses a name that is there twice, which the library lets pass where both have the same bytes.
        entries = _entries(header)
        data = 8 + len(header)
        wanted = data + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        if wanted > size:
            raise _damaged(path, f"cut short, {size} of {wanted} bytes")
        # The library checks the rest: types, dtypes, sizes, and that the offsets cover the file exactly.
        with safe_open(str(path), framework="np"):
            pass
    except SafetensorError as error:
        reason = str(error).removeprefix("Error while deserializing header: ")
        raise _damaged(path, " ".join(reason.split())) from error
    except ValueError as error:
        raise _damaged(path, f"header: {error}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    return {
        name: TensorInfo(name, entry["dtype"], tuple(entry["shape"]), path, data + entry["data_offsets"][0])
        for name, entry in entries.items()
    }


def read_metadata(path: Path) -> dict[str, str]:
    """The free-form metadata of a safetensors file that `read_file` has accepted."""
    return dict(parse_object(_raw_header(path)[0]).get("__metadata__") or {})


def _raw_header(path: Path) -> tuple[bytes, int]:
    """The header and the file's size; its stated length is believed only where the file can hold it."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(40)
        if start.startswith(b"version https://git-lfs"):
            raise CheckpointError(f"{path} is a Git LFS pointer, not the weights: run git lfs pull")
        if size < 8:
            raise _damaged(path, f"cut short, {size} bytes")
        length = int.from_bytes(start[:8], "little")
        if length > size - 8:
            raise _damaged(path, f"a header of {length} bytes in a file of {size}")
        if length > _MAX_HEADER:
            raise CheckpointError(f"{path} has a header of {length} bytes: minigen reads up to {_MAX_HEADER}")
        file.seek(8)
        return file.read(length), size


def _entries(header: bytes) -> dict[str, dict[str, Any]]:
    """What a header says of each tensor. Raises ValueError where that is not a dtype, a shape and two offsets.

    The library takes other spellings too, such as a list of the three.
    """
    entries = parse_object(header)
    entries.pop("__metadata__", None)
    for name, entry in entries.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
            raise ValueError(f"{shown(name)} is {shown(entry)}")
        shape, offsets = entry.get("shape"), entry.get("data_offsets")
        if not _whole_numbers(shape) or not _whole_numbers(offsets, 2):
            raise ValueError(f"{shown(name)} has the shape {shown(shape)} and the offsets {shown(offsets)}")
    return entries


def _whole_numbers(value: Any, count: int | None = None) -> bool:
    """Whether it is a list of numbers from 0, and of so many if a count is given."""
    if not isinstance(value, list) or count not in (None, len(value)):
        return False
    return all(type(number) is int and number >= 0 for number in value)


def _damaged(path: Path, fault: str) -> CheckpointError:
    return CheckpointError(f"{path} is no safetensors file, or damaged ({fault}): download it again")
