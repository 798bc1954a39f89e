"""Checkpoints: ordinary model folders that also have the state for a resume, written atomically.

RUN/step-000500/           an ordinary model: config.json, model.safetensors, tokenizer,
                           generation_config.json; with --lora-rank an adapter:
                           adapter_config.json, adapter_model.safetensors
RUN/step-000500/training/  state.safetensors, position.json
RUN/latest, RUN/best       the name of a folder, as text
RUN/.step-000500.old.tmp   a checkpoint while another one of the same step replaces it
RUN/                       the model files of the best checkpoint, or of the latest while none has
                           been validated, so that RUN is a model too
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.checkpoints.checkpoint import read_file
from minigen.checkpoints.saving import write_tensors
from minigen.errors import CheckpointError, MinigenError
from minigen.files import hash_file, replacing, sync_all, sync_file, sync_folder, workspace
from minigen.reading import parse_object, read_bytes
from minigen.training.exchange import POSITION, discard, exchange, find_checkpoint, settle
from minigen.training.position import Position

WEIGHTS, STATE = "model.safetensors", "training/state.safetensors"
LATEST, BEST = "latest", "best"

log = logging.getLogger("minigen.training")

Arrays = Mapping[str, npt.NDArray[Any]]


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
    """Writes the checkpoint of a step and makes it the latest.

    Args:
        run: the folder of the run.
        position: of the step.
        files: the small files of the model, by name.
        tensors: the weights, which are written in `dtype`.
        dtype: of the file of weights.
        state: the trainer's state.
        weights: the name of the file of weights.
        metadata: of the file of weights.

    Raises MinigenError if writing fails; earlier checkpoints are unchanged.
    """
    folder = run / name_of(position.step)
    try:
        run.mkdir(parents=True, exist_ok=True)
        settle(run)
        with workspace(folder) as temporary:
            (temporary / "training").mkdir()
            for name, content in files.items():
                (temporary / name).write_bytes(content)
            write_tensors(temporary / weights, tensors, dtype, metadata)
            write_tensors(temporary / STATE, state)
            hashes = {name: hash_file(temporary / name) for name in (weights, STATE)}
            content_of_position = json.dumps(asdict(position) | {"hashes": hashes}, indent=1)
            (temporary / POSITION).write_text(content_of_position + "\n")
            sync_all(temporary)
            exchange(temporary, folder)
        point(run, LATEST, folder.name)
        if position.best_step == position.step:
            point(run, BEST, folder.name)
    except OSError as error:
        raise MinigenError(f"cannot write {folder}: {error.strerror or error}") from error
    return folder


def tidy(run: Path, position: Position, keep: int) -> None:
    """Completes what a killed process left undone, before the run continues at `position`.

    Raises MinigenError if writing fails.
    """
    try:
        settle(run)
        if position.best_step is not None:
            best = find_checkpoint(run / name_of(position.best_step))
            if best is not None and best != pointed(run, BEST):
                point(run, BEST, best.name)
    except OSError as error:
        raise MinigenError(f"cannot write {run}: {error.strerror or error}") from error
    if pointed(run, LATEST) is not None:
        prune(run, keep)
        publish(run)


def point(run: Path, name: str, target: str) -> None:
    """Writes RUN/latest or RUN/best."""
    with replacing(run / name) as temporary:
        temporary.write_text(target + "\n")


def pointed(run: Path, name: str) -> Path | None:
    """The checkpoint that RUN/latest or RUN/best names; None if there is none."""
    try:
        target = read_bytes(run / name, 4096).decode("ascii").strip()
    except (OSError, ValueError):
        return None
    if not re.fullmatch(r"step-\d+", target):
        return None
    return find_checkpoint(run / target)


def chosen(run: Path) -> Path | None:
    """The checkpoint whose model files are in RUN itself."""
    return pointed(run, BEST) or pointed(run, LATEST)


def publish(run: Path) -> Path:
    """Makes RUN itself a model, with the files of the best checkpoint, or of the latest.

    Each file is replaced as a whole, config.json at the end. Raises MinigenError if writing fails.
    """
    source = chosen(run)
    assert source is not None, "there is a checkpoint"
    paths = sorted(path for path in source.iterdir() if path.is_file())
    paths.sort(key=lambda path: path.name == "config.json")
    try:
        with workspace(run / "model") as work:
            for path in paths:
                temporary = work / path.name
                try:
                    os.link(path, temporary)  # takes no space on the disk
                except OSError:  # a file system without hard links
                    shutil.copyfile(path, temporary)
                    sync_file(temporary)
            for path in paths:
                os.replace(work / path.name, run / path.name)
        sync_folder(run)
    except OSError as error:
        raise MinigenError(
            f"cannot write the model into {run}: {error.strerror or error}"
        ) from error
    return source


def prune(run: Path, keep: int) -> None:
    """Removes all checkpoints except the newest `keep` ones, the best and the latest."""
    newest = steps_in(run)[:keep]
    kept = {*newest, pointed(run, BEST), pointed(run, LATEST)}
    for folder in steps_in(run):
        if folder not in kept:
            with contextlib.suppress(OSError):
                discard(folder)


def steps_in(run: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    steps: dict[int, Path] = {}
    for path in (*run.glob(".step-*.old.tmp"), *run.glob("step-*")):
        match = re.fullmatch(r"(?:\.step-(\d+)\.old\.tmp|step-(\d+))", path.name)
        if match is not None:
            steps[int(match[1] or match[2])] = path
    return [steps[step] for step in sorted(steps, reverse=True)]


def newest(run: Path) -> tuple[Path, Position] | None:
    """The checkpoint to continue from: the latest, or the newest that is intact, with a warning.

    None if there are no checkpoints. Raises CheckpointError if none of them is intact.
    """
    candidates = steps_in(run)
    latest = pointed(run, LATEST)
    if latest is not None:
        candidates.insert(0, latest)
    problem: CheckpointError | None = None
    for folder in dict.fromkeys(candidates):
        try:
            position = read_position(folder)
        except CheckpointError as error:
            problem = problem or error
            continue
        if problem is not None:
            log.warning("%s; continuing from %s", problem, folder)
        return folder, position
    if problem is not None:
        raise problem
    return None


def read_position(folder: Path) -> Position:
    """Reads the position of a checkpoint, and checks its files.

    Raises CheckpointError if a file is missing or damaged.
    """
    try:
        content = parse_object(read_bytes(folder / POSITION, 2**24))
        content.setdefault("teacher", "")  # missing in checkpoints of older versions
        position = Position(**{field.name: content[field.name] for field in fields(Position)})
        position.check()
        hashes = {name: hash_file(folder / name) for name in position.hashes or {}}
    except OSError as error:
        raise CheckpointError(
            f"{folder}: cannot read {error.filename}: {error.strerror}"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{folder / POSITION} is damaged") from None
    for name, digest in hashes.items():
        if digest != (position.hashes or {})[name]:
            raise CheckpointError(f"{folder / name} is damaged: it differs from what was written")
    return position


def read_state(folder: Path) -> dict[str, npt.NDArray[Any]]:
    """The trainer's state in a checkpoint. Raises CheckpointError if the file is damaged."""
    from safetensors.numpy import load_file

    read_file(folder / STATE)
    return {name: np.asarray(x) for name, x in load_file(folder / STATE).items()}
