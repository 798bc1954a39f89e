"""Writing files so that nothing is lost: beside the old one, synced, then renamed over it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minigen.errors import MinigenError, UsageError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` when the block ends well, else it is removed.

    A crash or a full disk leaves the old file whole. Raises MinigenError, naming the path, where the disk refuses.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            yield beside
            with open(beside, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(beside, path)
            sync_folder(path.parent)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise MinigenError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` to write into; it gets that name when the block ends well, else it is removed.

    Raises UsageError where there is something of that name, MinigenError where the disk refuses.
    """
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} is there already: name another folder, or remove it")
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        beside.mkdir(parents=True)
        try:
            yield beside
            sync_all(beside)
            os.rename(beside, folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise MinigenError(f"cannot write {folder}: {error.strerror or error}") from error


def sync_all(folder: Path) -> None:
    """All files and folders in a folder, and itself."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        else:
            sync_folder(path)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Makes a rename in this folder last through a power cut, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
