"""Which files a user means, and their content as a stream that is checked and hashed on the way."""

from __future__ import annotations

import codecs
import glob
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from minigen.errors import MinigenError, UsageError, shown
from minigen.files import hash_file

ENDINGS = (".txt", ".md", ".jsonl")  # what is taken from a folder
CHUNK = 2**20  # bytes read at a time
BOM = codecs.BOM_UTF8

Read = Callable[[int], None]  # told how many bytes were read


class DataError(MinigenError):
    """Training data that cannot be used: FILE or FILE:LINE, what is wrong with it, and what to do."""


@dataclass(frozen=True)
class Found:
    """The files of some sources, and what lay beside them in the folders and was not taken, both in order."""

    files: tuple[Path, ...]
    left_out: tuple[Path, ...] = ()


def find_files(sources: Sequence[str | os.PathLike[str]]) -> Found:
    """The files that are meant by names of files, folders (whole trees) and globs; each file once.

    From a folder come the files with one of ENDINGS, sorted by path; hidden files and folders are left out, and so
    are other endings. A named file may be called anything; only `.jsonl` is read as rows.

    Raises UsageError: no source, or an empty name.
    Raises DataError: nothing is there, or nothing that can be read.
    """
    if not sources:
        raise UsageError("no training data: name a file, a folder or a glob")
    files: dict[tuple[int, int], Path] = {}
    left_out: dict[Path, None] = {}
    for given in sources:
        source = os.fspath(given)
        if not source:
            raise UsageError("the name of a source is empty: name a file, a folder or a glob")
        if "\0" in source:
            raise DataError(
                f"{shown(source)}: no file can be called so: name a file, a folder or a glob"
            )
        for path in _matches(source):
            found = _in_folder(path) if path.is_dir() else Found((path,))
            if not found.files:
                raise DataError(
                    f"{path}: the folder has no {', '.join(ENDINGS)} file: name its files, or a glob"
                )
            for file in found.files:
                files.setdefault(_identity(file), file)
            left_out.update(dict.fromkeys(found.left_out))
    return Found(
        tuple(files.values()), tuple(path for path in left_out if path not in files.values())
    )


def _matches(source: str) -> list[Path]:
    path = Path(os.path.expanduser(source))
    if os.path.lexists(path) or not glob.has_magic(source):
        return [path]
    matches = sorted(glob.glob(str(path), recursive=True))
    if not matches:
        raise DataError(f"{source}: matches no file: check the pattern (hidden files are left out)")
    return [Path(match) for match in matches]


def _in_folder(folder: Path) -> Found:
    """Links to folders are not followed: they may lead round in a circle."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from error

    taken, left_out = list[Path](), list[Path]()
    for root, folders, names in os.walk(folder, onerror=refuse):
        left_out += [Path(root, name) for name in folders if name.startswith(".")]
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            hidden = name.startswith(".") or not name.lower().endswith(ENDINGS)
            (left_out if hidden else taken).append(Path(root, name))
    return Found(tuple(sorted(taken)), tuple(sorted(left_out)))


def _identity(path: Path) -> tuple[int, int]:
    try:
        info = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(info.st_mode):  # it is read more than once
        raise DataError(f"{path}: is no regular file: write its content to a file first")
    if info.st_size == 0:
        raise DataError(f"{path}: is empty: leave it out, or fill it")
    return info.st_dev, info.st_ino


@dataclass
class Reader:
    """Reads one file once: `lines` or `chunks`. `digest` is the SHA-256 of its bytes after that.

    Both raise DataError, with the byte, for what is no UTF-8 or has a zero byte, and for a file that cannot be read.
    """

    path: Path
    read: Read = lambda count: None
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def chunks(self) -> Iterator[str]:
        """The text in pieces of about CHUNK bytes, without a byte order mark."""
        held, at = b"", 0  # bytes of an unfinished character, and the place of the first of them
        with self._open() as file:
            while True:
                new = self._take(file.read(CHUNK), at + len(held))
                data = held + new
                if at == 0 and data.startswith(BOM):
                    data, at = data[len(BOM) :], len(BOM)
                text, used = self._decode(data, at, final=not new)
                yield text
                if not new:
                    return
                held, at = data[used:], at + used

    def lines(self) -> Iterator[tuple[int, str]]:
        """Numbers from 1 and lines, without their line breaks."""
        at = 0
        with self._open() as file:
            for number, raw in enumerate(file, 1):
                line = self._take(raw, at)
                skip = len(BOM) if at == 0 and line.startswith(BOM) else 0
                yield number, self._decode(line[skip:], at + skip, final=True)[0].rstrip("\r\n")
                at += len(raw)

    def _open(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror}") from error

    def _take(self, data: bytes, at: int) -> bytes:
        self._hash.update(data)
        self.read(len(data))
        if b"\0" in data:
            place = at + data.index(b"\0")
            raise DataError(
                f"{self.path}: is no text: byte 0x00 at {place}; leave it out, or save it as UTF-8 if it is UTF-16"
            )
        return data

    def _decode(self, data: bytes, at: int, final: bool) -> tuple[str, int]:
        try:
            return codecs.utf_8_decode(data, "strict", final)
        except UnicodeDecodeError as error:
            byte, place = data[error.start], at + error.start
            raise DataError(
                f"{self.path}: not UTF-8: byte 0x{byte:02X} at {place}; save it as UTF-8"
            ) from None


def file_digest(path: Path, read: Read = lambda count: None) -> str:
    """SHA-256 of a file's bytes. Raises DataError where it cannot be read."""
    try:
        return hash_file(path, read=read)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
