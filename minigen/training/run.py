"""Beginning a run and going on with one: whose folder it is, and what must not have changed."""

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
from minigen.training.checkpoint import Position
from minigen.training.config import FREE, LORA, SETTINGS, SHAPE, Config, checked
from minigen.training.presets import preset
from minigen.training.run_data import Progress
from minigen.training.run_folder import MARK, SAVED, making
from minigen.training.setup import Setup, absolute, build
from minigen.training.toml_file import read_toml, to_toml

BROUGHT = (*SHAPE, "tokenizer")  # what comes with `--from`

Start = tuple[Path, Position]  # a checkpoint and what it says


def make_config(
    flags: Mapping[str, Any], name: str | None = None, toml: Path | None = None
) -> Config:
    """Defaults, changed by a preset, changed by a file, changed by flags. Raises UsageError."""
    given = {**(read_toml(toml) if toml else {}), **flags}
    base = dict(preset(name)) if name else {}
    if given.get("from"):
        wrong = [key for key in given if key in BROUGHT]
        if wrong:
            raise UsageError(
                f"{flag(wrong[0])} is given, and the model of --from brings its own: drop one of them"
            )
        base = {key: value for key, value in base.items() if key not in BROUGHT}
    if not given.get("teacher"):
        wrong = [key for key in given if SETTINGS[key][0] == "teacher" and key != "teacher"]
        if wrong:
            raise UsageError(
                f"{flag(wrong[0])} is given and no teacher: name one with --teacher, or drop it"
            )
    elif not given.get("from"):
        base["tokenizer"] = given["teacher"]
    config = Config().replace(**{**base, **given})
    asked = [
        key for key in LORA if key in flags
    ]  # a file has all settings, whether they count or not
    if (asked or config.model.lora_rank) and not config.model.from_model:
        raise UsageError(
            f"{flag(asked[0] if asked else LORA[0])} is given without --from: name the model to adapt"
        )
    if asked and not config.model.lora_rank:
        raise UsageError(
            f"{flag(asked[0])} is given, and the rank is 0: say --lora-rank N, at least 1"
        )
    return config


def flag(name: str) -> str:
    return "DATA" if name == "data" else f"--{name.replace('_', '-')}"


@contextlib.contextmanager
def first_process_first(group: Group) -> Iterator[None]:
    """The block runs in the first process, which may make files, and then in the others.

    Where it fails in the first, it does not run in the others: they raise SharedError.
    """
    if group.rank:
        if group.sum_numbers([0.0])[0]:
            raise SharedError("the first process failed before a step was made")
        yield
        return
    try:
        yield
    except Exception:
        with contextlib.suppress(MinigenError):  # another has ended: what went wrong here says more
            group.sum_numbers([1.0])
        raise
    barrier(group)


def begin(
    config: Config,
    out: Path,
    progress: Progress = lambda what, done, total: None,
    group: Group = ALONE,
) -> Setup:
    """Makes the folder of a new run, with its tokenizer and its settings; where that fails nothing is left.

    Raises UsageError where there is something already, MinigenError for whatever cannot be used or written.
    """
    with first_process_first(group):
        if group.rank == 0:
            return make(config, out, progress, group)
        setup, _ = take_up(out, {}, progress, group)
        return setup


def make(config: Config, out: Path, progress: Progress, group: Group) -> Setup:
    with making(out):
        setup = build(config, out, progress, group)
        write(out, setup.config)
    return setup


def write(out: Path, config: Config) -> None:
    with replacing(out / SAVED) as beside:
        beside.write_text(to_toml(config), encoding="utf-8")


def resume(
    run: Path,
    given: Mapping[str, Any],
    progress: Progress = lambda what, done, total: None,
    group: Group = ALONE,
) -> tuple[Setup, Start | None]:
    """What a run needs to go on, from its last checkpoint, or from the beginning where there is none yet.

    `given`: settings as they are now, by name; they must be those that the run began with, but for a few that change
    no number. Raises UsageError, naming it, for one that is not, and MinigenError for data or a tokenizer that
    changed.
    """
    with first_process_first(group):
        # What is given is in the run's settings by the time that the others read them.
        return take_up(run, given if group.rank == 0 else {}, progress, group)


def take_up(
    run: Path, given: Mapping[str, Any], progress: Progress, group: Group
) -> tuple[Setup, Start | None]:
    if not (run / SAVED).is_file():
        raise UsageError(f"{run} is no run: it has no {SAVED}; begin one with --out {run}")
    config = Config().replace(**read_toml(run / SAVED))
    changed = {name: checked(name, value) for name, value in given.items()}
    asked = absolute(config.replace(**changed)).values()
    start = checkpoint.newest(run)
    # A setting that there was not yet when the run began is as it was then.
    then = (
        {**Config().values(), **start[1].config}
        if start is not None and start[1].config
        else config.values()
    )
    for name in SETTINGS:
        # JSON has no tuples.
        before = tuple(then[name]) if isinstance(then[name], list) else then[name]
        if name in FREE or (name in changed and asked[name] == before):
            continue
        now = asked[name] if name in changed else config.values()[name]
        if now != before:
            raise UsageError(
                f"{flag(name)} is {now!r}, and {run} was begun with {before!r}: leave it as it was, or begin another "
                f"run, which --from {run} lets go on with this one's weights"
            )
    config = config.replace(**{name: value for name, value in changed.items() if name in FREE})
    setup = build(config, run, progress, group)
    if start is not None:
        found = setup.identity()
        places = {
            "tokenizer": ("the tokenizer", run / "tokenizer"),
            "data": ("the data set", ", ".join(map(str, setup.dataset.files[:3]))),
            "teacher": ("the teacher", setup.config.teacher.model),
        }
        for what, (name, where) in places.items():
            if found[what] != getattr(start[1], what):
                raise MinigenError(
                    f"{name} of {run} has changed since step {start[1].step} ({where}): put it back as it was, or "
                    f"begin another run with --from {run}"
                )
        if (
            setup.lora is not None
            and read_metadata(start[0] / WEIGHTS).get(BASE_KEY) != setup.lora.fingerprint
        ):
            raise MinigenError(
                f"the model that {run} adapts has changed since step {start[1].step} ({config.model.from_model}): put "
                "it back as it was, or begin another run"
            )
    if group.rank == 0:
        write(run, setup.config)
        (run / MARK).unlink(
            missing_ok=True
        )  # of a process that was killed when all but this was done
    return setup, start
