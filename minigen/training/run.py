"""Begins and resumes runs: makes their settings, and checks that nothing has changed since."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from minigen.backends.group import ALONE, Group, barrier
from minigen.checkpoints.adapters import BASE_KEY, WEIGHTS
from minigen.checkpoints.checkpoint import read_metadata
from minigen.errors import MinigenError, SharedError, UsageError
from minigen.files import replacing
from minigen.training import checkpoint
from minigen.training.config import FREE, LORA, SETTINGS, SHAPE, Config, checked
from minigen.training.position import Position
from minigen.training.presets import preset
from minigen.training.run_data import Progress
from minigen.training.run_folder import MARK, SAVED, making
from minigen.training.setup import Setup, absolute, build
from minigen.training.toml_file import read_toml, to_toml

FROM_MODEL = (*SHAPE, "tokenizer")  # settings that come with the model of `--from`

Start = tuple[Path, Position]  # a checkpoint and its position


def make_config(
    flags: Mapping[str, Any], name: str | None = None, toml: Path | None = None
) -> Config:
    """Defaults, changed by a preset, changed by a file, changed by flags. Raises UsageError."""
    given = {**(read_toml(toml) if toml else {}), **flags}
    base = dict(preset(name)) if name else {}
    if given.get("from"):
        for key in given:
            if key in FROM_MODEL:
                raise UsageError(
                    f"{flag(key)} is given, but the model of --from has its own: drop one of them"
                )
        for key in FROM_MODEL:
            base.pop(key, None)
    if not given.get("teacher"):
        for key in given:
            if SETTINGS[key][0] == "teacher" and key != "teacher":
                raise UsageError(
                    f"{flag(key)} is given without a teacher: name one with --teacher, or drop it"
                )
    elif not given.get("from"):
        base["tokenizer"] = given["teacher"]
    config = Config().replace(**{**base, **given})
    check_lora(config, flags)
    return config


def check_lora(config: Config, flags: Mapping[str, Any]) -> None:
    """Raises UsageError for settings of LoRA without a model to adapt, or without a rank."""
    rank = config.model.lora_rank
    # Only of the flags: a file has all settings, even if they have no effect.
    given = [key for key in LORA if key in flags]
    if given and not config.model.from_model:
        raise UsageError(f"{flag(given[0])} is given without --from: name the model to adapt")
    if rank and not config.model.from_model:
        raise UsageError(f"{flag(LORA[0])} is given without --from: name the model to adapt")
    if given and not rank:
        raise UsageError(f"{flag(given[0])} is given, but the rank is 0: add --lora-rank N")


def flag(name: str) -> str:
    """The flag of a setting on the command line."""
    if name == "data":
        return "DATA"
    return f"--{name.replace('_', '-')}"


@contextlib.contextmanager
def first_process_first(group: Group) -> Iterator[None]:
    """A block that runs in the first process, which may make files, and then in the others.

    If it fails in the first process, it does not run in the others, which raise SharedError.
    """
    if group.rank:
        if group.sum_numbers([0.0])[0]:
            raise SharedError("the first process failed before a step was made")
        yield
        return
    try:
        yield
    except Exception:
        with contextlib.suppress(MinigenError):  # if another has ended too, this error says more
            group.sum_numbers([1.0])
        raise
    barrier(group)


def begin(
    config: Config,
    out: Path,
    progress: Progress = lambda what, done, total: None,
    group: Group = ALONE,
) -> Setup:
    """Makes the folder of a new run with its tokenizer and settings; if that fails, nothing.

    Raises UsageError if the folder is not empty, MinigenError for data or a model that cannot be
    used, or if writing fails.
    """
    with first_process_first(group):
        if group.rank == 0:
            return make(config, out, progress, group)
        setup, _ = open_run(out, {}, progress, group)
        return setup


def make(config: Config, out: Path, progress: Progress, group: Group) -> Setup:
    with making(out):
        setup = build(config, out, progress, group)
        write(out, setup.config)
    return setup


def write(out: Path, config: Config) -> None:
    with replacing(out / SAVED) as temporary:
        temporary.write_text(to_toml(config), encoding="utf-8")


def resume(
    run: Path,
    given: Mapping[str, Any],
    progress: Progress = lambda what, done, total: None,
    group: Group = ALONE,
) -> tuple[Setup, Start | None]:
    """Opens a run to continue it from its last checkpoint, or from the beginning if it has none.

    Args:
        run: the folder of the run.
        given: current settings by name; except for a few that change no number, they must be those
            with which the run began.
        progress: of preparing the data.
        group: the processes that train together.

    Raises UsageError for a setting that has changed, MinigenError for data, a tokenizer or a model
    that has changed.
    """
    with first_process_first(group):
        # By the time that the other processes read the run's settings, they include those given.
        return open_run(run, given if group.rank == 0 else {}, progress, group)


def open_run(
    run: Path, given: Mapping[str, Any], progress: Progress, group: Group
) -> tuple[Setup, Start | None]:
    """As `resume`, in one process."""
    if not (run / SAVED).is_file():
        raise UsageError(f"{run} is not a run: it has no {SAVED}; begin one with --out {run}")
    config = Config().replace(**read_toml(run / SAVED))
    changed = {name: checked(name, value) for name, value in given.items()}
    start = checkpoint.newest(run)
    check_settings(run, config, changed, start)
    for name, value in changed.items():
        if name in FREE:
            config = config.replace(**{name: value})
    setup = build(config, run, progress, group)
    if start is not None:
        check_identity(run, setup, start)
    if group.rank == 0:
        write(run, setup.config)
        (run / MARK).unlink(missing_ok=True)  # left by a process that was killed at the very end
    return setup, start


def check_settings(
    run: Path, config: Config, changed: Mapping[str, Any], start: Start | None
) -> None:
    """Raises UsageError for changed settings, except for those of FREE."""
    saved = config.values()
    requested = absolute(config.replace(**changed)).values()
    original = saved
    if start is not None and start[1].config:
        # Settings that did not exist when the run began have their defaults.
        original = {**Config().values(), **start[1].config}
    for name in SETTINGS:
        if name in FREE:
            continue
        before = original[name]
        if isinstance(before, list):  # JSON has no tuples
            before = tuple(before)
        now = requested[name] if name in changed else saved[name]
        if now != before:
            raise UsageError(
                f"{flag(name)} is {now!r}, but {run} was begun with {before!r}: leave it as it "
                f"was, or begin another run from these weights with --from {run}"
            )


def check_identity(run: Path, setup: Setup, start: Start) -> None:
    """Raises MinigenError if tokenizer, data, teacher or base model have changed."""
    folder, position = start
    identity = setup.identity()
    files = ", ".join(str(path) for path in setup.dataset.files[:3])
    places = {
        "tokenizer": ("the tokenizer", run / "tokenizer"),
        "data": ("the data set", files),
        "teacher": ("the teacher", setup.config.teacher.model),
    }
    for key, (name, where) in places.items():
        if identity[key] != getattr(position, key):
            raise MinigenError(
                f"{name} of {run} has changed since step {position.step} ({where}): "
                f"restore it, or begin another run with --from {run}"
            )
    if setup.lora is None:
        return
    if read_metadata(folder / WEIGHTS).get(BASE_KEY) != setup.lora.fingerprint:
        raise MinigenError(
            f"the model that {run} adapts has changed since step {position.step} "
            f"({setup.config.model.from_model}): restore it, or begin another run"
        )
