"""Whether a file that came over the network is the one that the hub has: its size, its hash, no pointer to another."""

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.hf_api import RepoSibling

from minigen.errors import SourceError
from minigen.files import hash_file

POINTER = b"version https://git-lfs"  # how what Git keeps in place of a large file begins


@dataclass(frozen=True)
class Stated:
    """What the hub says of a file's content. Small files have the hash that Git gives them, large ones SHA-256."""

    size: int | None = None
    sha256: str | None = None
    git: str | None = None

    @classmethod
    def listed(cls, file: RepoSibling) -> "Stated":
        """By the list of a commit's files; a hub that does not tell leaves it open."""
        if file.lfs is not None:  # its blob_id is the pointer's
            return cls(file.lfs.size, file.lfs.sha256)
        return cls(file.size, None, file.blob_id)

    def or_of(self, path: Path) -> "Stated":
        """With the hash that the answer's ETag had, where the list has none: the cache calls the file by it."""
        name = path.resolve().name if path.is_symlink() else ""
        if self.sha256 is None and self.git is None and re.fullmatch(r"[0-9a-f]{64}", name):
            return Stated(self.size, name)
        if self.sha256 is None and self.git is None and re.fullmatch(r"[0-9a-f]{40}", name):
            return Stated(self.size, None, name)
        return self


def check_download(path: Path, stated: Stated, place: str) -> None:
    """Raises SourceError for a file that is not what the hub states, after it took it out of the cache.

    Where it is interrupted the file leaves the commit's folder, so that it is looked at again the next time.
    """
    try:
        fault = find_fault(path, stated.or_of(path))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    if fault is None:
        return
    try:
        blob = path.resolve()
        path.unlink()
        blob.unlink(missing_ok=True)  # other commits that have it fetch it again
        done = "it is removed"
    except OSError as error:
        done = f"remove {path} ({error.strerror})"
    raise SourceError(f"{path.name} of {place} is not what {constants.ENDPOINT} states: {fault}: {done}; try again")


def find_fault(path: Path, stated: Stated) -> str | None:
    """What is wrong with a file, with what was expected and what was found; None where it is right or nobody tells."""
    size = path.stat().st_size
    if stated.size is not None and size != stated.size:
        return f"it has {size} bytes, not {stated.size}"
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            return "it is a Git LFS pointer, not the file itself"
    if stated.sha256 is not None:
        found = hash_file(path)
        return None if found == stated.sha256 else f"its SHA-256 is {found}, not {stated.sha256}"
    if stated.git is not None:
        found = hash_file(path, "sha1", b"blob %d\0" % size)
        # A mirror may give the hash of the bytes alone.
        right = stated.git == found or stated.git == hash_file(path, "sha1")
        return None if right else f"its Git hash is {found}, not {stated.git}"
    return None
