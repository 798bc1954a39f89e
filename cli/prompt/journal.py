"""The JSONL of finished items: written as they finish, read to go on after an interruption."""

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
SCORED = "one stretch"  # how choices are scored (fewshot/stretch.py): what was scored otherwise is not mixed with it
OTHER = "give another --jsonl file, or remove this one"


@dataclass(frozen=True)
class ModelKey:
    """Which model answered."""

    name: str
    fingerprint: str  # of the folder's content, so the folder may move; "" where nothing is written
    dtype: str  # the model's `precision`


def content_hash(file: PromptFile) -> str:
    """A hash of all that decides an item's result; which numbers of shots, seeds and items are run does not."""
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
    """The items that are finished, in memory and, where a path is given, in a file.

    `done` has them by the content hash of their file. Raises MinigenError for a path that cannot be used, is in use,
    or holds items of another file or model.
    """

    def __init__(self, path: Path | None, files: Mapping[str, Sequence[str]], model: ModelKey) -> None:
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
                raise MinigenError(f"cannot use {path}: {error.strerror or error}; give a file for --jsonl") from error

    def _open(self, path: Path) -> None:
        """Opens the file, locks it and reads what is there. Raises OSError, or MinigenError as the class does."""
        self.made = not path.exists()
        if not self.made and not path.is_dir() and not path.is_file():
            raise MinigenError(f"cannot use {path}: it is no ordinary file; give a file for --jsonl")
        busy = f"{path} is being written by another run; wait for it, or {OTHER}"
        with ExitStack() as opened:
            self.stream = opened.enter_context(path.open("a+b", buffering=0))
            opened.enter_context(only_process(lock_beside(path), busy))
            self._read()
            self.opened = opened.pop_all()  # all is well: it stays open

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.path is None or self.stream is None:
            return
        if kind is not None and self.made and self.size == 0:  # it failed, and left nothing to go on from
            self.path.unlink(missing_ok=True)
        try:
            self.opened.close()
        except OSError as problem:  # some disks say it so late
            if kind is None:
                raise MinigenError(f"cannot write {self.path}: {problem.strerror or problem}") from problem

    def __len__(self) -> int:
        return sum(map(len, self.done.values()))

    def add(self, file: str, found: str, shots: int, seed: int, item: ItemResult) -> None:
        """Takes a finished item, and has it written before it returns. Raises MinigenError where the disk refuses."""
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
            advice = "; make room, and the same command goes on from the items that are in it" if self.size else ""
            raise MinigenError(f"cannot write {self.path}: {error.strerror or error}{advice}") from error
        self.size += len(line)

    def _read(self) -> None:
        """Takes in what is there. A last line without its end was cut short by a kill, and is cut off."""
        assert self.stream is not None
        self.stream.seek(0)
        *lines, rest = self.stream.read().split(b"\n")
        self.size = sum(len(line) + 1 for line in lines)
        for number, line in enumerate(lines, 1):
            self._take(line, f"{self.path}:{number}")
        if rest:
            if rest[: len(HEAD)] != HEAD[: len(rest)]:  # nothing that we wrote may be lost, nor what others wrote
                raise MinigenError(f"{self.path}:{len(lines) + 1}: is no finished item; {OTHER}")
            self.stream.truncate(self.size)
            print(
                f"minigen: warning: {self.path}:{len(lines) + 1}: was cut short and is dropped; its item runs again",
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
            values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
            item = ItemResult(**values)
            made_by = (entry["fingerprint"], entry["dtype"])
        except (ValueError, KeyError, TypeError, OverflowError):
            raise MinigenError(f"{where}: is no finished item; {OTHER}") from None
        if found not in self.files:
            if any(file in names for names in self.files.values()):
                raise MinigenError(
                    f"{where}: is of {file} as it, its data or the scoring of choices was before; {OTHER}"
                )
            raise MinigenError(f"{where}: is of {file}, which is not among the files; {OTHER}")
        if made_by != (self.model.fingerprint, self.model.dtype):
            this, that = f"{self.model.name} in {self.model.dtype}", f"{model} in {entry['dtype']}"
            what = f"was made by {that}, and this is {this}" if this != that else f"was made by {model} as it was"
            raise MinigenError(f"{where}: {what}; {OTHER}")
        self.done[found][key] = item
