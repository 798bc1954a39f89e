"""One checkpoint in another's place: at every moment the old one is there, or the new one, and a reader finds it.

A folder cannot be renamed over another as a file can. So the old one, of a run that was resumed from before it, keeps
another name, RUN/.step-000500.old.tmp, until the new one stands.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

from minigen.files import sweep, sync_folder, workspace

POSITION = "training/position.json"  # the last that is written of a checkpoint


def place_of(folder: Path) -> Path | None:
    """Where a checkpoint lies: under its name, or what was there before, if the new one never came."""
    return next((path for path in (folder, old_name(folder)) if (path / POSITION).is_file()), None)


def exchange(beside: Path, folder: Path) -> None:
    """Gives a new checkpoint its name, which another may have. Raises OSError, and then the other has it again."""
    old = old_name(folder)
    if folder.exists():
        os.replace(folder, old)
    try:
        os.replace(beside, folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.replace(old, folder)
        raise
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def old_name(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old.tmp")


def settle(run: Path) -> None:
    """Clears up after a process that was killed while it wrote into this run, which no other may be training now."""
    sweep(run)
    for old in run.glob(".step-*.old.tmp"):
        folder = run / old.name[1 : -len(".old.tmp")]
        if (folder / POSITION).is_file():
            shutil.rmtree(old, ignore_errors=True)
        else:
            discard(folder)
            os.replace(old, folder)
    for left in run.glob(".step-*.tmp"):  # as older versions wrote
        if re.fullmatch(r"\.step-\d+\.tmp", left.name):
            shutil.rmtree(left, ignore_errors=True)


def discard(folder: Path) -> None:
    """Removes a checkpoint, of which no half is ever in its place."""
    if folder.exists():
        with workspace(folder) as work:
            os.replace(folder, work / folder.name)
