"""One process at a time: a lock file, which the system releases when its process dies."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from minigen.errors import MinigenError

logger = logging.getLogger("minigen")


def lock_beside(path: Path) -> Path:
    """The lock file next to a file, and the same one for every link to the file."""
    file = path.resolve()
    return file.with_name(f"{file.name}.lock")


@contextmanager
def only_process(lock: Path, busy: str) -> Iterator[None]:
    """Keeps other processes out while the block runs. The lock file is deleted afterwards.

    If locking is impossible (a read-only folder, a network file system without locks), a warning
    says so, and the block runs without a lock.

    Args:
        lock: The lock file. It need not exist, but its folder must.
        busy: The message if another process has the lock.

    Raises MinigenError if another process has the lock.
    """
    from filelock import FileLock, Timeout  # imported late, as it takes 50 ms

    # A soft lock is only a file, which would remain if its process were killed.
    file_lock = FileLock(lock, timeout=0, fallback_to_soft=False)
    try:
        file_lock.acquire()
    except Timeout:
        raise MinigenError(busy) from None
    except OSError as error:
        reason = error.strerror or error
        logger.warning(
            "cannot lock %s: %s: make sure that no other process writes there", lock, reason
        )
        yield
        return
    try:
        yield
    finally:
        try:
            with suppress(OSError):  # Windows deletes no open file; filelock does it there
                lock.unlink()
        finally:
            file_lock.release()
