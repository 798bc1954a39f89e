"""Writing files so that nothing is lost: beside the old one, synced, then renamed over it.

What is being written lies in a hidden folder beside its place, `.NAME.HOST.PID.XXXXXXXX.tmp`, with a lock that the
system gives back when the process dies. Who writes there next removes what dead processes have left.
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
NAMED = 100  # bytes of a name that a workspace repeats; file systems take 255 in all
TRIES = 10  # to make a workspace, where others sweep at the same moment

_LEFT = re.compile(r"\..*\.(?P<host>[^.]*)\.(?P<process>\d+)\.[0-9a-f]{8}\.tmp")


def check_writable(path: Path) -> None:
    """Raises MinigenError where no file could be written, so that it is said before the work and not after it."""
    try:
        check_ordinary(path)
        if not path.parent.is_dir():
            raise MinigenError(f"cannot write {path}: there is no folder {path.parent}")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise MinigenError(f"cannot write {path}: nothing can be written in {path.parent}")
    except OSError as error:
        raise MinigenError(f"cannot write {path}: {error.strerror or error}") from error


def check_ordinary(path: Path) -> None:
    """Raises MinigenError for a folder, a device, a pipe: a rename would take the place of a device for ever."""
    if path.is_dir():
        raise MinigenError(f"cannot write {path}: Is a directory")
    if path.exists() and not path.is_file():
        raise MinigenError(f"cannot write {path}: it is no ordinary file")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; it takes the place of `path` when the block ends well, else it is removed.

    A crash or a full disk leaves the old file whole. Raises MinigenError, naming the path, where the disk refuses, and
    for what is there and no ordinary file.
    """
    try:
        check_ordinary(path)
        with workspace(path) as work:
            beside = work / path.name
            yield beside
            sync_file(beside)
            os.replace(beside, path)
            sync_folder(path.parent)
    except OSError as error:
        raise MinigenError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def new_folder(folder: Path, *, shared: bool = False) -> Iterator[Path]:
    """A folder to write into; it becomes `folder` when the block ends well, else it is removed.

    `shared`: other processes make the same folder, and what the fastest made stays. Otherwise raises UsageError where
    there is something of that name. Raises MinigenError where the disk refuses.
    """
    try:
        if not shared and (folder.exists() or folder.is_symlink()):
            raise UsageError(f"{folder} is there already: name another folder, or remove it")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with workspace(folder) as beside:
            yield beside
            sync_all(beside)
            try:
                os.rename(beside, folder)
            except OSError:
                if not (shared and folder.is_dir()):
                    raise
            sync_folder(folder.parent)
    except OSError as error:
        raise MinigenError(f"cannot write {folder}: {error.strerror or error}") from error


@contextmanager
def workspace(place: Path) -> Iterator[Path]:
    """A folder of this process beside `place`, on the same file system. It goes when the block ends, unless it has been
    renamed.

    Raises OSError where it cannot be made.
    """
    sweep(place.parent)
    work, lock = make_workspace(place)
    try:
        yield work
    finally:
        try:
            shutil.rmtree(work, ignore_errors=True)
        finally:
            if lock is not None:
                os.close(lock)


def make_workspace(place: Path) -> tuple[Path, int | None]:
    """The folder, and the handle that locks it, where the system has such locks."""
    name = os.fsencode(place.name)[:NAMED].decode("utf-8", "ignore")
    for _ in range(TRIES):
        work = place.with_name(f".{name}.{own_host()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
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
    """Locks a file or folder until its handle is closed: whether that went, or None for a file system without locks."""
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def sweep(folder: Path) -> None:
    """Removes the workspaces of processes that have died. Nothing else is touched, and nothing here is an error."""
    try:
        names = [name for name in os.listdir(folder) if name.endswith(".tmp")]
    except OSError:
        return
    for name in names if POSIX else []:
        found = _LEFT.fullmatch(name)
        if found is not None:
            with contextlib.suppress(OSError):
                sweep_one(folder / name, found["host"], int(found["process"]))


def sweep_one(work: Path, host: str, process: int) -> None:
    handle = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        locked = take_lock(handle, wait=False)
        if locked or (locked is None and dead(host, process)):
            shutil.rmtree(work, ignore_errors=True)
    finally:
        os.close(handle)


def own_host() -> str:
    """This machine in the name of a workspace, of which each part is without a dot."""
    return socket.gethostname().replace(".", "-")


def dead(host: str, process: int) -> bool:
    """Whether this machine has no such process; that of another machine may well live."""
    if host != own_host():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's; no number of a process
        return False
    return False


def hash_file(path: Path, kind: str = "sha256", begin: bytes = b"", read: Callable[[int], None] | None = None) -> str:
    """The hash, in hexadecimal, of `begin` and then a file's bytes. `read` is told how many each piece has.

    Raises OSError where it cannot be read.
    """
    digest = hashlib.new(kind, begin)
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            digest.update(data)
            if read is not None:
                read(len(data))
    return digest.hexdigest()


def sync_all(folder: Path) -> None:
    """All files and folders in a folder, and itself."""
    for path in folder.rglob("*"):
        if path.is_file():
            sync_file(path)
        else:
            sync_folder(path)
    sync_folder(folder)


def sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Makes a rename in this folder last through a power cut, where the system can."""
    if POSIX:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
