"""Writing files so that nothing is lost: to a temporary file, synced, then renamed.

The temporary file is in a hidden folder next to the final one, `.NAME.HOST.PID.XXXXXXXX.tmp`,
which is locked until the process ends. The next process that writes there removes what dead ones
have left.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from minigen.errors import MinigenError, UsageError

POSIX = os.name == "posix"
CHUNK = 2**20  # bytes read at a time
MOST_NAME = 100  # bytes of a name that a workspace repeats; file systems allow 255 in all
TRIES = 10  # to create a workspace while other processes sweep

_LEFT = re.compile(r"\..*\.(?P<host>[^.]*)\.(?P<process>\d+)\.[0-9a-f]{8}\.tmp")


def check_writable(path: Path) -> None:
    """Raises MinigenError if a file cannot be written there; to be called before the work."""
    try:
        check_ordinary(path)
        if not path.parent.is_dir():
            raise MinigenError(f"cannot write {path}: there is no folder {path.parent}")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise MinigenError(f"cannot write {path}: {path.parent} is not writable")
    except OSError as error:
        raise MinigenError(f"cannot write {path}: {error.strerror or error}") from error


def check_ordinary(path: Path) -> None:
    """Raises MinigenError for a folder, a device or a pipe, which a rename would replace."""
    if path.is_dir():
        raise MinigenError(f"cannot write {path}: Is a directory")
    if path.exists() and not path.is_file():
        raise MinigenError(f"cannot write {path}: it is not a regular file")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to. It replaces `path` if the block succeeds, else it is removed.

    A crash or a full disk leaves the old file intact.

    Raises MinigenError: the file cannot be written, or what is there is not a regular file.
    """
    try:
        check_ordinary(path)
        with workspace(path) as work:
            temporary = work / path.name
            yield temporary
            sync_file(temporary)
            os.replace(temporary, path)
            sync_folder(path.parent)
    except OSError as error:
        raise MinigenError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def new_folder(folder: Path, *, shared: bool = False) -> Iterator[Path]:
    """A temporary folder to write to. It becomes `folder` if the block succeeds, else it goes.

    Args:
        folder: The new folder.
        shared: Whether other processes create the same folder; the first of them wins.

    Raises UsageError: the folder exists, and is not shared.
    Raises MinigenError: it cannot be written.
    """
    try:
        if not shared and (folder.exists() or folder.is_symlink()):
            raise UsageError(f"{folder} is there already: name another folder, or remove it")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with workspace(folder) as temporary:
            yield temporary
            sync_all(temporary)
            try:
                os.rename(temporary, folder)
            except OSError:
                another_won = shared and folder.is_dir()
                if not another_won:
                    raise
            sync_folder(folder.parent)
    except OSError as error:
        raise MinigenError(f"cannot write {folder}: {error.strerror or error}") from error


@contextmanager
def workspace(path: Path) -> Iterator[Path]:
    """A temporary folder next to `path`, on the same file system.

    It is removed when the block ends, unless it was renamed. Raises OSError if it cannot be
    created.
    """
    sweep(path.parent)
    work, lock = make_workspace(path)
    try:
        yield work
    finally:
        try:
            shutil.rmtree(work, ignore_errors=True)
        finally:
            if lock is not None:
                os.close(lock)


def make_workspace(path: Path) -> tuple[Path, int | None]:
    """The folder, and the handle that locks it, if the system has such locks."""
    name = os.fsencode(path.name)[:MOST_NAME].decode("utf-8", "ignore")
    for _ in range(TRIES):
        unique = f"{own_host()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
        work = path.with_name(f".{name}.{unique}.tmp")
        work.mkdir()
        if not POSIX:
            return work, None
        try:
            handle = os.open(work, os.O_RDONLY)
        except FileNotFoundError:  # swept before it had a lock
            continue
        take_lock(handle, wait=True)
        if work.exists():
            return work, handle
        os.close(handle)  # swept while it waited for one
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(work))


def take_lock(handle: int, *, wait: bool) -> bool | None:
    """Locks a file or folder until its handle is closed.

    Returns whether it is locked now; None on a file system without locks.
    """
    import fcntl

    mode = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
    try:
        fcntl.flock(handle, mode)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def sweep(folder: Path) -> None:
    """Removes the workspaces of dead processes, and nothing else. It never fails."""
    if not POSIX:
        return
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        match = _LEFT.fullmatch(name)
        if match is not None:
            with contextlib.suppress(OSError):
                sweep_one(folder / name, match["host"], int(match["process"]))


def sweep_one(work: Path, host: str, process: int) -> None:
    """Removes a workspace if its process is dead."""
    handle = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        locked = take_lock(handle, wait=False)
        if locked or (locked is None and is_dead(host, process)):
            shutil.rmtree(work, ignore_errors=True)
    finally:
        os.close(handle)


def own_host() -> str:
    """The name of this machine, without dots, as in the name of a workspace."""
    return socket.gethostname().replace(".", "-")


def is_dead(host: str, process: int) -> bool:
    """Whether this machine has no such process. Those of other machines may be alive."""
    if host != own_host():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's process, or not a process number
        return False
    return False


def hash_file(
    path: Path, kind: str = "sha256", begin: bytes = b"", read: Callable[[int], None] | None = None
) -> str:
    """The hash of a file, in hexadecimal.

    Args:
        path: The file.
        kind: A name that hashlib knows.
        begin: Bytes that are hashed before those of the file.
        read: Is called with the size of every chunk that was read, to show progress.

    Raises OSError: the file cannot be read.
    """
    digest = hashlib.new(kind, begin)
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            digest.update(data)
            if read is not None:
                read(len(data))
    return digest.hexdigest()


def sync_all(folder: Path) -> None:
    """Writes all files and folders in a folder to the disk, and itself."""
    for path in folder.rglob("*"):
        if path.is_file():
            sync_file(path)
        else:
            sync_folder(path)
    sync_folder(folder)


def sync_file(path: Path) -> None:
    """Writes a file to the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Makes renames in this folder survive a power failure, if the system can."""
    if not POSIX:
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
