"""Finds the files of sources, and reads them as streams that are checked and hashed."""

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

ENDINGS = (".txt", ".md", ".jsonl")  # files that are taken from a folder
CHUNK = 2**20  # bytes read at a time
BOM = codecs.BOM_UTF8

OnRead = Callable[[int], None]  # called with the number of bytes that were read


class DataError(MinigenError):
    """Training data that cannot be used: `FILE[:LINE]: what is wrong; what to do`."""


@dataclass(frozen=True)
class FileList:
    """The files of some sources, and the other files in their folders, both in order."""

    files: tuple[Path, ...]
    left_out: tuple[Path, ...] = ()


def find_files(sources: Sequence[str | os.PathLike[str]]) -> FileList:
    """The files of names, folders (with their subfolders) and globs, each file once.

    In folders only files with one of ENDINGS are taken, sorted by path, and no hidden files and
    folders. A file that is named may have any ending; only `.jsonl` is read as rows.

    Raises UsageError: no source, or an empty name.
    Raises DataError: there are no files, or they cannot be read.
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
                f"{shown(source)}: a NUL cannot be in a name: name a file, a folder or a glob"
            )
        for path in _matches(source):
            listing = _in_folder(path) if path.is_dir() else FileList((path,))
            if not listing.files:
                raise DataError(
                    f"{path}: the folder has no {', '.join(ENDINGS)} file: "
                    "name its files, or a glob"
                )
            for file in listing.files:
                files.setdefault(_identity(file), file)
            left_out.update(dict.fromkeys(listing.left_out))
    for file in files.values():
        left_out.pop(file, None)
    return FileList(tuple(files.values()), tuple(left_out))


def _matches(source: str) -> list[Path]:
    """The files and folders of a name or a glob."""
    path = Path(os.path.expanduser(source))
    if os.path.lexists(path) or not glob.has_magic(source):
        return [path]
    matches = sorted(glob.glob(str(path), recursive=True))
    if not matches:
        raise DataError(f"{source}: no file matches: check the pattern (hidden files are left out)")
    return [Path(match) for match in matches]


def _in_folder(folder: Path) -> FileList:
    """The files in a folder. Links to folders are not followed: they may form a cycle."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from error

    taken: list[Path] = []
    left_out: list[Path] = []
    for root, folders, names in os.walk(folder, onerror=refuse):
        for name in list(folders):
            if name.startswith("."):
                folders.remove(name)  # so that os.walk skips it
                left_out.append(Path(root, name))
        for name in names:
            if name.startswith(".") or not name.lower().endswith(ENDINGS):
                left_out.append(Path(root, name))
            else:
                taken.append(Path(root, name))
    return FileList(tuple(sorted(taken)), tuple(sorted(left_out)))


def _identity(path: Path) -> tuple[int, int]:
    """What is the same for two names of a file. Raises DataError for a file that cannot be used."""
    try:
        info = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(info.st_mode):  # it is read more than once
        raise DataError(f"{path}: is not a regular file: write its content to a file first")
    if info.st_size == 0:
        raise DataError(f"{path}: is empty: drop it, or fill it")
    return info.st_dev, info.st_ino


@dataclass
class Reader:
    """Reads one file once, by `lines` or by `chunks`; after that, `digest` is its SHA-256.

    Both raise DataError for a file that cannot be read, that is not UTF-8, or that has a zero byte.
    """

    path: Path
    on_read: OnRead = lambda count: None
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def chunks(self) -> Iterator[str]:
        """The text in pieces of about CHUNK bytes, without a byte order mark."""
        rest = b""  # the bytes of an unfinished character
        offset = 0  # in the file, of the first of them
        with self._open() as file:
            while True:
                new = self._checked(file.read(CHUNK), offset + len(rest))
                data = rest + new
                if offset == 0 and data.startswith(BOM):
                    data = data[len(BOM) :]
                    offset = len(BOM)
                text, used = self._decode(data, offset, final=not new)
                yield text
                if not new:
                    return
                rest = data[used:]
                offset += used

    def lines(self) -> Iterator[tuple[int, str]]:
        """(number from 1, line) of each line, without line breaks and byte order mark."""
        offset = 0
        with self._open() as file:
            for number, line in enumerate(file, 1):
                self._checked(line, offset)
                skip = len(BOM) if offset == 0 and line.startswith(BOM) else 0
                text, _ = self._decode(line[skip:], offset + skip, final=True)
                yield number, text.rstrip("\r\n")
                offset += len(line)

    def _open(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror}") from error

    def _checked(self, data: bytes, offset: int) -> bytes:
        """The data at an offset of the file, counted and hashed."""
        self._hash.update(data)
        self.on_read(len(data))
        if b"\0" in data:
            raise DataError(
                f"{self.path}: is not text: byte 0x00 at offset {offset + data.index(0)}; "
                "drop it, or save it as UTF-8 if it is UTF-16"
            )
        return data

    def _decode(self, data: bytes, offset: int, final: bool) -> tuple[str, int]:
        """(text, number of bytes used) of the data at an offset; all bytes, if it is `final`."""
        try:
            return codecs.utf_8_decode(data, "strict", final)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.path}: is not UTF-8: byte 0x{data[error.start]:02X} "
                f"at offset {offset + error.start}; save it as UTF-8"
            ) from None


def file_digest(path: Path, on_read: OnRead = lambda count: None) -> str:
    """SHA-256 of a file's bytes. Raises DataError if it cannot be read."""
    try:
        return hash_file(path, read=on_read)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
