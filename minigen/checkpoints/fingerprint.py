"""A name for a model by what its files hold: the same for the same weights, wherever they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from minigen.checkpoints.adapters import WEIGHTS, is_adapter, read_adapter
from minigen.checkpoints.checkpoint import read_config, read_headers
from minigen.errors import CheckpointError

WHOLE = 64 * 2**20  # bytes of a file up to which all of it counts
BLOCKS, BLOCK = 64, 2**18  # of a larger one: how many blocks count, and their bytes


def fingerprint(folder: Path) -> str:
    """64 hexadecimal digits: SHA-256 over config.json and the weight files, in the order of their names.

    A file of more than 64 MiB is told by its size, its safetensors header and 64 blocks of 256 KiB, evenly spaced from
    the first byte to the last. That tells models and training steps apart at the price of reading 16 MiB, but not two
    files that were made to differ between the blocks. Of an adapter, its base, its scales and its weights count. Raises
    CheckpointError where the folder is no model, SourceError where an adapter's base is not there.
    """
    whole = hashlib.sha256()
    if is_adapter(folder):
        adapter = read_adapter(folder)
        scales = sorted((module, pair.scale) for module, pair in adapter.pairs.items())
        whole.update(f"{fingerprint(adapter.base_folder(offline=True))} {scales}".encode())
        paths = [folder / WEIGHTS]
    else:
        read_config(folder)
        paths = [folder / "config.json", *sorted({info.file for info in read_headers(folder).values()})]
    for path in paths:
        one = hashlib.sha256()
        try:
            for piece in pieces(path):
                one.update(piece)
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
        whole.update(one.digest())
    return whole.hexdigest()


def pieces(path: Path) -> Iterator[bytes]:
    """What of a file counts; its size comes first."""
    size = path.stat().st_size
    yield size.to_bytes(8, "little")
    with path.open("rb") as file:
        if size <= WHOLE:
            while piece := file.read(2**20):
                yield piece
            return
        start = file.read(8)
        yield start + file.read(int.from_bytes(start, "little"))  # read_headers has checked the length
        for i in range(BLOCKS):
            file.seek((size - BLOCK) * i // (BLOCKS - 1))
            yield file.read(BLOCK)
