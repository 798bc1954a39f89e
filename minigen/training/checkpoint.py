"""Checkpoints: ordinary model folders with what a resume needs beside, each whole or not there.

RUN/step-000500/           config.json, model.safetensors, tokenizer, generation_config.json: a model like any other
RUN/step-000500/training/  state.safetensors, position.json
RUN/latest, RUN/best       the name of a folder, as text
RUN/.step-000500.old.tmp   the checkpoint that was there before one of the same step, until that one stands
RUN/                       the best checkpoint's model files (the latest's while none has been validated): a model too
                           Runs with --lora-rank have adapter_config.json and adapter_model.safetensors instead.
"""

from __future__ import annotations

import contextlib
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

from minigen.checkpoints.checkpoint import read_file
from minigen.checkpoints.saving import write_tensors
from minigen.errors import CheckpointError, MinigenError
from minigen.files import hash_file, replacing, sync_all, sync_file, sync_folder, workspace
from minigen.reading import parse_object, read_bytes
from minigen.training.exchange import POSITION, discard, exchange, place_of, settle

WEIGHTS, STATE = "model.safetensors", "training/state.safetensors"
HASHED = re.compile(
    r"(training/)?[\w-]+\.safetensors"
)  # the files of a checkpoint that have a hash
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
            all(
                HASHED.fullmatch(name) and isinstance(value, str)
                for name, value in (self.hashes or {}).items()
            ),
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
    try:
        run.mkdir(parents=True, exist_ok=True)
        settle(run)
        with workspace(folder) as beside:
            (beside / "training").mkdir()
            for name, content in files.items():
                (beside / name).write_bytes(content)
            write_tensors(beside / weights, tensors, dtype, metadata)
            write_tensors(beside / STATE, state)
            known = asdict(position) | {
                "hashes": {name: hash_file(beside / name) for name in (weights, STATE)}
            }
            (beside / POSITION).write_text(json.dumps(known, indent=1) + "\n")
            sync_all(beside)
            exchange(beside, folder)
        point(run, LATEST, folder.name)
        if position.best_step == position.step:
            point(run, BEST, folder.name)
    except OSError as error:
        raise MinigenError(f"cannot write {folder}: {error.strerror or error}") from error
    return folder


def tidy(run: Path, position: Position, keep: int) -> None:
    """What a process that was killed had still to do, before the run goes on from a checkpoint at `position`.

    Raises MinigenError where the disk refuses.
    """
    try:
        settle(run)
        best = None if position.best_step is None else place_of(run / name_of(position.best_step))
        if best is not None and best != pointed(run, BEST):
            point(run, BEST, best.name)
    except OSError as error:
        raise MinigenError(f"cannot write {run}: {error.strerror or error}") from error
    if pointed(run, LATEST) is not None:
        prune(run, keep)
        publish(run)


def point(run: Path, name: str, target: str) -> None:
    with replacing(run / name) as beside:
        beside.write_text(target + "\n")


def pointed(run: Path, name: str) -> Path | None:
    """The checkpoint that RUN/latest or RUN/best names, if it is there."""
    try:
        target = read_bytes(run / name, 4096).decode("ascii").strip()
    except (OSError, ValueError):
        return None
    return place_of(run / target) if re.fullmatch(r"step-\d+", target) else None


def chosen(run: Path) -> Path | None:
    """The checkpoint that RUN itself is."""
    return pointed(run, BEST) or pointed(run, LATEST)


def publish(run: Path) -> Path:
    """Makes RUN itself a model: the best checkpoint's files, or the latest's, config.json last; one by one, each whole.

    Raises MinigenError where the disk refuses.
    """
    source = chosen(run)
    assert source is not None, "there is a checkpoint"
    paths = sorted(
        (p for p in source.iterdir() if p.is_file()),
        key=lambda p: (p.name == "config.json", p.name),
    )
    try:
        with workspace(run / "model") as work:
            for path in paths:
                beside = work / path.name
                try:
                    os.link(path, beside)  # a second name takes no room
                except OSError:  # a file system without such
                    shutil.copyfile(path, beside)
                    sync_file(beside)
            for path in paths:
                os.replace(work / path.name, run / path.name)
        sync_folder(run)
    except OSError as error:
        raise MinigenError(
            f"cannot write the model into {run}: {error.strerror or error}"
        ) from error
    return source


def prune(run: Path, keep: int) -> None:
    """Removes all checkpoints but the newest `keep` and the best."""
    newest = steps_in(run)[:keep]
    kept = {*newest, pointed(run, BEST), pointed(run, LATEST)}
    for folder in steps_in(run):
        if folder not in kept:
            with contextlib.suppress(OSError):
                discard(folder)


def steps_in(run: Path) -> list[Path]:
    """The checkpoints of a run, the newest first."""
    steps: dict[int, Path] = {}
    for path in (*run.glob(".step-*.old.tmp"), *run.glob("step-*")):
        match = re.fullmatch(r"(?:\.step-(\d+)\.old\.tmp|step-(\d+))", path.name)
        if match is not None:
            steps[int(match[1] or match[2])] = path
    return [steps[step] for step in sorted(steps, reverse=True)]


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
        hashes = {name: hash_file(folder / name) for name in position.hashes or {}}
    except OSError as error:
        raise CheckpointError(
            f"{folder}: cannot read {error.filename}: {error.strerror}"
        ) from error
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
