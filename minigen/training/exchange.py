"""Replaces a checkpoint by another one; at every moment a reader finds the old one or the new one.

Unlike a file, a folder cannot be renamed over another one. A checkpoint that exists already, since
the run was resumed from an earlier one, is kept as RUN/.step-000500.old.tmp until the new one is in
place.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

from minigen.files import sweep, sync_folder, workspace

POSITION = "training/position.json"  # the last file of a checkpoint to be written


def find_checkpoint(folder: Path) -> Path | None:
    """The folder of a checkpoint: its own, or that of the old one if it was not replaced."""
    for path in (folder, old_name(folder)):
        if (path / POSITION).is_file():
            return path
    return None


def exchange(new: Path, folder: Path) -> None:
    """Renames a new checkpoint to `folder`, in place of one that may be there.

    Raises OSError if that fails; an old checkpoint is then in its place again.
    """
    old = old_name(folder)
    if folder.exists():
        os.replace(folder, old)
    try:
        os.replace(new, folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.replace(old, folder)
        raise
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def old_name(folder: Path) -> Path:
    """The name of a checkpoint while it is being replaced."""
    return folder.with_name(f".{folder.name}.old.tmp")


def settle(run: Path) -> None:
    """Cleans up after a process that was killed while it wrote into this run.

    No other process may be training it.
    """
    sweep(run)
    for old in run.glob(".step-*.old.tmp"):
        folder = run / old.name[1 : -len(".old.tmp")]
        if (folder / POSITION).is_file():
            shutil.rmtree(old, ignore_errors=True)
        else:
            discard(folder)
            os.replace(old, folder)
    for folder in run.glob(".step-*.tmp"):  # of older versions
        if re.fullmatch(r"\.step-\d+\.tmp", folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def discard(folder: Path) -> None:
    """Removes a checkpoint; readers see all of it, or nothing."""
    if folder.exists():
        with workspace(folder) as work:
            os.replace(folder, work / folder.name)
