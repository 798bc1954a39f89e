"""Whether a downloaded file is the one that the hub has: its size and its hash."""

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.hf_api import RepoSibling

from minigen.errors import SourceError
from minigen.files import hash_file

POINTER = b"version https://git-lfs"  # the beginning of what Git stores in place of a large file


@dataclass(frozen=True)
class Stated:
    """What the hub states about a file. Small files have Git's hash, large ones SHA-256."""

    size: int | None = None
    sha256: str | None = None
    git: str | None = None

    @classmethod
    def listed(cls, file: RepoSibling) -> "Stated":
        """From the list of a commit's files; what the hub does not state is None."""
        if file.lfs is not None:  # blob_id is then that of the pointer
            return cls(file.lfs.size, file.lfs.sha256)
        return cls(file.size, None, file.blob_id)

    def or_of(self, path: Path) -> "Stated":
        """With the hash of the ETag, if the list has none: the cache names files by it."""
        if self.sha256 is not None or self.git is not None or not path.is_symlink():
            return self
        name = path.resolve().name
        if re.fullmatch(r"[0-9a-f]{64}", name):
            return Stated(self.size, name)
        if re.fullmatch(r"[0-9a-f]{40}", name):
            return Stated(self.size, None, name)
        return self


def check_download(path: Path, stated: Stated, model: str) -> None:
    """Raises SourceError for a file that is not what the hub states, and removes it from the cache.

    If the check is interrupted, the file leaves the commit's folder, so it is checked again the
    next time.
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
        remedy = "it was removed; try again"
    except OSError as error:
        remedy = f"remove {path} ({error.strerror}) and try again"
    raise SourceError(
        f"{path.name} of {model} is not what {constants.ENDPOINT} states: {fault}: {remedy}"
    )


def find_fault(path: Path, stated: Stated) -> str | None:
    """What is wrong with a file; None if it is right or the hub states nothing."""
    size = path.stat().st_size
    if stated.size is not None and size != stated.size:
        return f"it has {size} bytes, not {stated.size}"
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            return "it is a Git LFS pointer, not the file itself"
    if stated.sha256 is not None:
        sha256 = hash_file(path)
        if sha256 != stated.sha256:
            return f"its SHA-256 is {sha256}, not {stated.sha256}"
    elif stated.git is not None:
        git_hash = hash_file(path, "sha1", b"blob %d\0" % size)
        # A mirror may state the hash of the bytes alone.
        if stated.git != git_hash and stated.git != hash_file(path, "sha1"):
            return f"its Git hash is {git_hash}, not {stated.git}"
    return None
