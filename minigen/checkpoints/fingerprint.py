"""An identifier of a model by the contents of its files: equal for equal weights anywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from minigen.checkpoints.adapters import WEIGHTS, is_adapter, read_adapter
from minigen.checkpoints.checkpoint import read_config, read_headers
from minigen.errors import CheckpointError

WHOLE = 64 * 2**20  # files of up to so many bytes are hashed as a whole
BLOCKS, BLOCK = 64, 2**18  # of larger ones, so many blocks of so many bytes are hashed


def fingerprint(folder: Path) -> str:
    """64 hexadecimal digits: SHA-256 over config.json and the weight files, sorted by name.

    Of a file of more than 64 MiB only its size, its safetensors header and 64 evenly spaced
    blocks of 256 KiB are hashed. That is enough to distinguish models and training steps while
    reading only 16 MiB, but not files that were made to differ between the blocks. For an
    adapter, its base, its scales and its weights are hashed.

    Raises CheckpointError: the folder is not a model.
    Raises SourceError: the base of an adapter is not there.
    """
    digest = hashlib.sha256()
    if is_adapter(folder):
        adapter = read_adapter(folder)
        scales = sorted((module, pair.scale) for module, pair in adapter.pairs.items())
        digest.update(f"{fingerprint(adapter.base_folder(offline=True))} {scales}".encode())
        paths = [folder / WEIGHTS]
    else:
        read_config(folder)
        weight_files = {info.file for info in read_headers(folder).values()}
        paths = [folder / "config.json", *sorted(weight_files)]
    for path in paths:
        file_digest = hashlib.sha256()
        try:
            for chunk in hashed_parts(path):
                file_digest.update(chunk)
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
        digest.update(file_digest.digest())
    return digest.hexdigest()


def hashed_parts(path: Path) -> Iterator[bytes]:
    """The parts of a file that are hashed, its size first."""
    size = path.stat().st_size
    yield size.to_bytes(8, "little")
    with path.open("rb") as file:
        if size <= WHOLE:
            yield from iter(lambda: file.read(2**20), b"")
            return
        start = file.read(8)
        yield start + file.read(
            int.from_bytes(start, "little")
        )  # read_headers has checked the length
        for index in range(BLOCKS):
            file.seek((size - BLOCK) * index // (BLOCKS - 1))
            yield file.read(BLOCK)
