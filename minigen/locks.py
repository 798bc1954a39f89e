"""One process at a time: a lock file beside what is written, which the system releases when its process dies."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from minigen.errors import MinigenError

logger = logging.getLogger("minigen")


def lock_beside(path: Path) -> Path:
    """The lock file of a file: the same one, whichever link names the file."""
    file = path.resolve()
    return file.with_name(f"{file.name}.lock")


@contextmanager
def only_process(lock: Path, busy: str) -> Iterator[None]:
    """No other process is within it at the same time, with the same lock file. The file goes when the block ends.

    Where no lock can be had (a read-only folder, a network file system without locks) a warning says so, and the
    block runs all the same.

    Args:
        lock: the lock file; it need not exist, its folder must.
        busy: the message where another process holds the lock.

    Raises MinigenError where another process holds the lock.
    """
    from filelock import FileLock, Timeout  # late: it takes 50 ms

    # A soft lock is a file and nothing more: it would stay when its process is killed.
    held = FileLock(lock, timeout=0, fallback_to_soft=False)
    try:
        held.acquire()
    except Timeout:
        raise MinigenError(busy) from None
    except OSError as error:
        reason = error.strerror or error
        logger.warning(
            "cannot lock %s: %s: see that no other process writes there meanwhile", lock, reason
        )
        yield
        return
    try:
        yield
    finally:
        try:
            with suppress(
                OSError
            ):  # Windows removes no file that is open, and filelock does it there
                lock.unlink()
        finally:
            held.release()
