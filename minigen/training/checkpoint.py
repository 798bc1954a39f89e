"""Checkpoints: ordinary model folders with what a resume needs beside, each whole or not there.

RUN/step-000500/           config.json, model.safetensors, tokenizer, generation_config.json: a model like any other
RUN/step-000500/training/  state.safetensors, position.json
RUN/latest, RUN/best       the name of a folder, as text
RUN/                       the best checkpoint's model files (the latest's while none has been validated): a model too
                           Runs with --lora-rank have adapter_config.json and adapter_model.safetensors instead.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.checkpoint import read_file
from minigen.errors import CheckpointError, MinigenError
from minigen.families.saving import write_tensors
from minigen.files import replacing, sync_all, sync_folder
from minigen.reading import parse_object, read_bytes

WEIGHTS, STATE, POSITION = "model.safetensors", "training/state.safetensors", "training/position.json"
HASHED = re.compile(r"(training/)?[\w-]+\.safetensors")  # the files of a checkpoint that have a hash
LARGEST = 1e300  # of a number that is kept; NaN may be
LATEST, BEST = "latest", "best"

log = logging.getLogger("minigen.training")

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Position:
    """Where a run stands, and what it is a run of."""

    step: int  # updates that have been made
    smoothed: float = 0.0  # of the training loss, before it is divided by `weight`
    weight: float = 0.0
    best_step: int | None = None  # of all that were validated
    best_loss: float | None = None
    config: Mapping[str, Any] | None = None
    data: str = ""  # the data set's key
    tokenizer: str = ""  # its identity
    teacher: str = ""  # its fingerprint
    hashes: Mapping[str, str] | None = None  # SHA-256 of the large files

    def check(self) -> None:
        """Raises ValueError for values of the wrong kind, as a file may have them, and for files outside the folder."""
        best = (self.best_step, self.best_loss)
        numbers = (self.smoothed, self.weight, *(value for value in best if value is not None))
        texts = (self.data, self.tokenizer, self.teacher)
        right = [
            type(self.step) is int and 0 <= self.step < 2**62,
            all(type(number) in (int, float) and not abs(number) > LARGEST for number in numbers),
            all(isinstance(text, str) for text in texts),
            all(isinstance(value, Mapping | None) for value in (self.config, self.hashes)),
            all(HASHED.fullmatch(name) and isinstance(value, str) for name, value in (self.hashes or {}).items()),
        ]
        if not all(right):
            raise ValueError


def name_of(step: int) -> str:
    return f"step-{step:06d}"


def save(
    run: Path,
    position: Position,
    files: Mapping[str, bytes],
    tensors: Arrays,
    dtype: str,
    state: Arrays,
    weights: str = WEIGHTS,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Writes the checkpoint of a step beside the others and makes it the latest.

    `files`: the small ones of the model by name; `tensors` go into the file `weights`, with `metadata`. Raises
    MinigenError where the disk refuses; all that was there is as it was.
    """
    folder = run / name_of(position.step)
    beside = run / f".{folder.name}.tmp"
    try:
        for left in run.glob(".*.tmp"):  # of a process that was killed: there is only one at a time
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        (beside / "training").mkdir(parents=True)
        try:
            for name, content in files.items():
                (beside / name).write_bytes(content)
            write_tensors(beside / weights, tensors, dtype, metadata)
            write_tensors(beside / STATE, state)
            known = asdict(position) | {"hashes": {name: sha256(beside / name) for name in (weights, STATE)}}
            (beside / POSITION).write_text(json.dumps(known, indent=1) + "\n")
            sync_all(beside)
            if folder.exists():  # of a run that was resumed from before it
                os.replace(folder, run / f".{folder.name}.old.tmp")
            os.replace(beside, folder)
            sync_folder(run)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(run / f".{folder.name}.old.tmp", ignore_errors=True)
        point(run, LATEST, folder.name)
        if position.best_step == position.step:
            point(run, BEST, folder.name)
    except OSError as error:
        raise MinigenError(f"cannot write {folder}: {error.strerror or error}") from error
    return folder


def point(run: Path, name: str, target: str) -> None:
    with replacing(run / name) as beside:
        beside.write_text(target + "\n")


def pointed(run: Path, name: str) -> Path | None:
    """The checkpoint that RUN/latest or RUN/best names, if it is there."""
    try:
        found = read_bytes(run / name, 4096).decode("ascii").strip()
    except (OSError, ValueError):
        return None
    folder = run / found
    return folder if re.fullmatch(r"step-\d+", found) and (folder / POSITION).is_file() else None


def publish(run: Path) -> Path:
    """Makes RUN itself a model: the best checkpoint's files, or the latest's, config.json last; one by one, each whole.

    Raises MinigenError where the disk refuses.
    """
    source = pointed(run, BEST) or pointed(run, LATEST)
    assert source is not None, "there is a checkpoint"
    paths = sorted((p for p in source.iterdir() if p.is_file()), key=lambda p: (p.name == "config.json", p.name))
    try:
        for path in paths:
            beside = run / f".{path.name}.tmp"
            beside.unlink(missing_ok=True)
            try:
                os.link(path, beside)  # a second name takes no room
            except OSError:  # a file system without such
                shutil.copyfile(path, beside)
            os.replace(beside, run / path.name)
            beside.unlink(missing_ok=True)  # a rename to another name of the same file does nothing
        sync_folder(run)
    except OSError as error:
        raise MinigenError(f"cannot write the model into {run}: {error.strerror or error}") from error
    return source


def prune(run: Path, keep: int) -> None:
    """Removes all checkpoints but the newest `keep` and the best."""
    newest = steps_in(run)[:keep]
    kept = {*newest, pointed(run, BEST), pointed(run, LATEST)}
    for folder in steps_in(run):
        if folder not in kept:
            shutil.rmtree(folder, ignore_errors=True)


def steps_in(run: Path) -> list[Path]:
    """The checkpoints of a run, the newest first."""
    found = [path for path in run.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name[5:]), reverse=True)


def newest(run: Path) -> tuple[Path, Position] | None:
    """The checkpoint to go on from: the latest, or with a warning the newest that is whole; None where there is none.

    Raises CheckpointError where there are some and none is whole.
    """
    latest = pointed(run, LATEST)
    candidates = list(dict.fromkeys([*([latest] if latest else []), *steps_in(run)]))
    problem: CheckpointError | None = None
    for folder in candidates:
        try:
            position = read_position(folder)
        except CheckpointError as error:
            problem = problem or error
            continue
        if problem is not None:
            log.warning("%s; going on from %s", problem, folder)
        return folder, position
    if problem is not None:
        raise problem
    return None


def read_position(folder: Path) -> Position:
    """Raises CheckpointError where a file is missing, or is not what was written."""
    try:
        content = parse_object(read_bytes(folder / POSITION, 2**24))
        content.setdefault("teacher", "")  # a checkpoint may be older than teachers
        position = Position(**{field.name: content[field.name] for field in fields(Position)})
        position.check()
        hashes = {name: sha256(folder / name) for name in position.hashes or {}}
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot read {error.filename}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{folder / POSITION} is damaged") from None
    for name, found in hashes.items():
        if found != (position.hashes or {})[name]:
            raise CheckpointError(f"{folder / name} is not as it was written")
    return position


def read_state(folder: Path) -> dict[str, npt.NDArray[Any]]:
    """Raises CheckpointError where the file is damaged."""
    from safetensors.numpy import load_file

    read_file(folder / STATE)
    return {name: np.asarray(x) for name, x in load_file(folder / STATE).items()}


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(2**20):
            digest.update(data)
    return digest.hexdigest()
