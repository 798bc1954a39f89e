"""The folder of a run that begins: there with all it needs, or not at all, whenever its process dies."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minigen.errors import MinigenError, UsageError
from minigen.files import sweep
from minigen.locks import only_process
from minigen.training.setup import TOKENIZER
from minigen.training.teacher import TEXT

SAVED = "train.toml"  # the last that is written of what a run needs
MARK = ".unfinished"  # there until then, and locked by the process that makes the folder
PARTS = (TOKENIZER, TEXT)  # what else may be there until then


@contextmanager
def making(out: Path) -> Iterator[None]:
    """Within it, `out` is a folder of this process alone, with nothing in it. Where the block fails all goes again, and
    what a process that was killed has left goes now.

    Raises UsageError where there is something already, MinigenError where the disk refuses or another process is at it.
    """
    made = not out.exists()
    try:
        if made:
            out.mkdir(parents=True, exist_ok=True)
        check_empty(out)
        (out / MARK).touch(mode=0o600)
    except OSError as error:
        raise MinigenError(f"cannot make {out}: {error.strerror or error}") from error
    busy = f"{out} is being made by another process: wait for it, or name another --out"
    with only_process(out / MARK, busy):
        check_empty(out)  # the other may just have finished
        empty(out)
        try:
            yield
        except BaseException:
            empty(out)
            with contextlib.suppress(OSError):
                (out / MARK).unlink()
                if made:
                    out.rmdir()
            raise
        (out / MARK).unlink(missing_ok=True)


def check_empty(out: Path) -> None:
    """Raises UsageError for a folder that holds anything but what a process that was killed has left."""
    names = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
    if SAVED in names:
        raise UsageError(
            f"{out} has a run already: go on with --resume {out}, or name another --out"
        )
    if MARK in names:
        sweep(out)
        names -= {MARK, *PARTS, *(name for name in names if not (out / name).exists())}
    if names:
        raise UsageError(f"{out} is there already, and not empty: name another folder for --out")


def empty(out: Path) -> None:
    """Removes what is in a folder but the mark, without which it would be anybody's."""
    for path in out.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != MARK:
            path.unlink(missing_ok=True)
