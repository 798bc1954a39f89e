"""The JSONL of finished items: written as they finish, read to continue an interrupted run."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, fields
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from minigen.errors import MinigenError
from minigen.locks import lock_beside, only_process
from minigen.reading import parse_object

if TYPE_CHECKING:
    from minigen.evaluation.fewshot import PromptFile
    from minigen.evaluation.fewshot.result import ItemResult

Key = tuple[int, int, int]  # shots, seed, index of the item
HEAD = b'{"file": '  # how each line of ours begins
# How choices are scored (fewshot/stretch.py). Results of another way are not mixed with these.
SCORED = "one stretch"
OTHER = "give another --jsonl file, or remove this one"


@dataclass(frozen=True)
class ModelKey:
    """Which model answered."""

    name: str
    fingerprint: str  # of the folder's content, so the folder may move; "" where nothing is written
    dtype: str  # the model's `precision`


def content_hash(file: PromptFile) -> str:
    """A hash of all that affects an item's result, so without the shots, seeds and items to run."""
    content = asdict(file)
    for name in ("path", "shots"):
        del content[name]
    content["pick"] = file.shots.pick
    if any(item.choices or item.contexts for item in file.items):
        content["scored"] = SCORED
    for entry in (*content["examples"], *content["items"]):
        del entry["where"]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class Journal:
    """The items that are finished, in memory and, if a path is given, in a file.

    `done` has them by the content hash of their file. Raises MinigenError if the path cannot be
    used, is in use, or has items of another file or model.
    """

    def __init__(
        self, path: Path | None, files: Mapping[str, Sequence[str]], model: ModelKey
    ) -> None:
        """`files`: content hash -> the names of the files that have it."""
        self.path, self.files, self.model = path, files, model
        self.done: dict[str, dict[Key, ItemResult]] = {found: {} for found in files}
        self.stream: FileIO | None = None
        self.opened = ExitStack()  # the file and its lock
        self.size = 0  # bytes of finished items in the file
        if path is not None:
            try:
                self._open(path)
            except OSError as error:
                raise MinigenError(
                    f"cannot use {path}: {error.strerror or error}; give a file for --jsonl"
                ) from error

    def _open(self, path: Path) -> None:
        """Open the file, lock it, and read it. Raises OSError, or the MinigenError of the class."""
        self.made = not path.exists()
        if not self.made and not path.is_dir() and not path.is_file():
            raise MinigenError(
                f"cannot use {path}: it is not an ordinary file; give a file for --jsonl"
            )
        busy = f"{path} is being written by another run; wait for it, or {OTHER}"
        with ExitStack() as opened:
            self.stream = opened.enter_context(path.open("a+b", buffering=0))
            opened.enter_context(only_process(lock_beside(path), busy))
            self._read()
            self.opened = opened.pop_all()  # all is well: it stays open

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self.path is None or self.stream is None:
            return
        if kind is not None and self.made and self.size == 0:  # a new file without any item
            self.path.unlink(missing_ok=True)
        try:
            self.opened.close()
        except OSError as problem:  # some disks report an error only now
            if kind is None:
                raise MinigenError(
                    f"cannot write {self.path}: {problem.strerror or problem}"
                ) from problem

    def __len__(self) -> int:
        return sum(map(len, self.done.values()))

    def add(self, file: str, found: str, shots: int, seed: int, item: ItemResult) -> None:
        """Add a finished item, and write it before returning. Raises MinigenError if that fails."""
        self.done[found][shots, seed, item.index] = item
        if self.stream is not None:
            line: dict[str, Any] = {
                "file": file,
                "file_hash": found,
                "model": self.model.name,
                "fingerprint": self.model.fingerprint,
            }
            line |= {"dtype": self.model.dtype, "shots": shots, "seed": seed, **asdict(item)}
            self._append(json.dumps(line, ensure_ascii=False).encode() + b"\n")

    def _append(self, line: bytes) -> None:
        """A whole line, or nothing."""
        assert self.stream is not None
        left = memoryview(line)
        try:
            while left:
                left = left[self.stream.write(left) :]
        except OSError as error:
            with suppress(OSError):
                self.stream.truncate(self.size)
            advice = ""
            if self.size:
                advice = "; make room, and the same command continues after the items in it"
            raise MinigenError(
                f"cannot write {self.path}: {error.strerror or error}{advice}"
            ) from error
        self.size += len(line)

    def _read(self) -> None:
        """Read the items in the file. Remove a last line without a line ending."""
        assert self.stream is not None
        self.stream.seek(0)
        *lines, rest = self.stream.read().split(b"\n")
        self.size = sum(len(line) + 1 for line in lines)
        for number, line in enumerate(lines, 1):
            self._take(line, f"{self.path}:{number}")
        if rest:
            if rest[: len(HEAD)] != HEAD[: len(rest)]:  # not written by us: do not remove it
                raise MinigenError(f"{self.path}:{len(lines) + 1}: is not a finished item; {OTHER}")
            self.stream.truncate(self.size)
            print(
                f"minigen: warning: {self.path}:{len(lines) + 1}: is incomplete and dropped; "
                "its item runs again",
                file=sys.stderr,
            )

    def _take(self, line: bytes, where: str) -> None:
        from minigen.evaluation.fewshot.result import ItemResult

        try:
            entry = parse_object(line)
            file, found, model = entry["file"], entry["file_hash"], entry["model"]
            key = (int(entry["shots"]), int(entry["seed"]), int(entry["index"]))
            values: dict[str, Any] = {
                field.name: entry[field.name] for field in fields(ItemResult) if field.name in entry
            }
            values |= {
                name: tuple(value) for name, value in values.items() if isinstance(value, list)
            }
            item = ItemResult(**values)
            made_by = (entry["fingerprint"], entry["dtype"])
        except (ValueError, KeyError, TypeError, OverflowError):
            raise MinigenError(f"{where}: is not a finished item; {OTHER}") from None
        if found not in self.files:
            if any(file in names for names in self.files.values()):
                raise MinigenError(
                    f"{where}: is of {file} before it, its data or the scoring of choices changed; "
                    f"{OTHER}"
                )
            raise MinigenError(f"{where}: is of {file}, which is not among the files; {OTHER}")
        if made_by != (self.model.fingerprint, self.model.dtype):
            this, that = f"{self.model.name} in {self.model.dtype}", f"{model} in {entry['dtype']}"
            difference = f"was made by {that}, and this is {this}"
            if this == that:
                difference = f"was made by an earlier version of {model}"
            raise MinigenError(f"{where}: {difference}; {OTHER}")
        self.done[found][key] = item
