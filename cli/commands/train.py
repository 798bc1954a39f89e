"""`minigen train`: a model from text files."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigen.errors import MinigenError, SharedError, UsageError, first_of

from ..display.progress import Bar, Busy
from ..parser import Parser

if TYPE_CHECKING:
    import dataclasses

    from minigen.backends.group import Group
    from minigen.training.config import Config
    from minigen.training.reports import Outcome
    from minigen.training.run import Start
    from minigen.training.setup import Setup

FIRST = 1.0  # seconds that the first process has to say what went wrong, before a launcher ends it for another's end
TITLES = {
    "model": "the model",
    "data": "the data",
    "teacher": "a teacher",
    "optimizer": "the optimizer",
    "schedule": "how long, how fast",
}


def add_arguments(parser: Parser) -> None:
    from minigen.training.config import SETTINGS
    from minigen.training.presets import PRESETS

    text = SETTINGS["data"][1].metadata["help"]
    parser.also(parser.add_argument("data", nargs="*", metavar="DATA", help=text), "--data")
    parser.add_argument("--out", metavar="DIR", help="the run's folder (default: DATA-MODEL here)")
    parser.add_argument("--preset", choices=PRESETS, help="settings that belong together")
    parser.add_argument("--config", metavar="FILE", help="settings in TOML, such as the train.toml of another run")
    what = parser.add_argument_group("instead of a new run").add_mutually_exclusive_group()
    what.add_argument("--resume", metavar="RUN", help="go on with a run from its last checkpoint, exactly")
    what.add_argument("--doctor", action="store_true", help="check what would be trained, and train nothing")
    what.add_argument("--plot", metavar="RUN", help="draw the losses of a run into RUN/loss.png")
    groups: dict[str, Any] = {}
    for name, (group, f) in SETTINGS.items():
        if group not in groups:
            groups[group] = parser.add_argument_group(TITLES.get(group, "the run"))
        if name != "data":
            add_flag(groups[group], name, f)


def add_flag(group: Any, name: str, f: dataclasses.Field[Any]) -> None:
    """The flag of a setting. It has no default of its own: a preset or a file may set it too."""
    default, text = f.default, f.metadata["help"].replace("%", "%%")
    flag = f"--{name.replace('_', '-')}"
    options: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS}
    if isinstance(default, bool):
        said = f"{text} (default: {'yes' if default else 'no'})"
        group.add_argument(flag, action=argparse.BooleanOptionalAction, help=said, **options)
        return
    if isinstance(default, tuple):
        options |= {"nargs": len(default), "type": float} if default else {"nargs": "+"}
        shown = " ".join(f"{x:g}" for x in default)
    else:
        options["type"] = type(default)
        shown = f"{default:g}" if isinstance(default, float) else str(default)
    if choices := [choice for choice in f.metadata["choices"] if choice]:
        options["choices"] = choices
    else:
        number = {float: "X", int: "N"}.get(type(default[0] if isinstance(default, tuple) and default else default))
        options["metavar"] = number or "TEXT"
    said = f"{text} (default: {shown})" if shown and "default" not in text else text
    group.add_argument(flag, help=said, **options)


def flags_of(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given as flags."""
    from minigen.training.config import SETTINGS

    given = {name: getattr(args, name) for name in SETTINGS if hasattr(args, name)}
    if not given.get("data"):
        given.pop("data", None)
    return given


def run(args: argparse.Namespace) -> int:
    if args.plot is not None:
        return draw(Path(args.plot))
    if args.doctor:
        return diagnose(args)
    from minigen.backends import join_group
    from minigen.backends.group import barrier

    group = join_group()
    if group.rank:
        logging.getLogger("minigen").setLevel(logging.ERROR)  # the first process warns for all
    try:
        code = train(args, group)
    except SharedError as error:
        if group.rank == 0:
            raise
        time.sleep(FIRST)
        return error.exit_code
    barrier(group)
    return code


def train(args: argparse.Namespace, group: Group) -> int:
    """The whole of a run in this process: of several, the first one speaks."""
    from minigen.training.loop import Loop
    from minigen.training.run import begin, first_process_first, resume

    from ..display.train_display import make_display

    flags = flags_of(args)
    start: Start | None = None
    with first_process_first(group):
        config, folder = plan(args, flags)
    with Reading(group.rank == 0) as reading:
        if config is None:
            setup, start = resume(folder, flags, reading, group)
        else:
            setup = begin(config, folder, reading, group)
    if group.rank == 0:
        say_data(setup)
    with make_display(group.rank == 0) as display:
        outcome = Loop(setup, folder, display, start).run()
    if group.rank:
        return 130 if outcome.stopped else 0
    return finish(folder, outcome, adapter=setup.lora is not None)


def plan(args: argparse.Namespace, flags: dict[str, Any]) -> tuple[Config | None, Path]:
    """The settings of a new run, or none where one goes on, and its folder."""
    if args.resume is None:
        config = wanted(args, flags)
        return config, Path(args.out) if args.out else default_out(config)
    for name in ("out", "preset", "config"):
        if getattr(args, name) is not None:
            raise UsageError(f"--resume goes on with the settings of the run: drop --{name}")
    return None, Path(args.resume)


def wanted(args: argparse.Namespace, flags: dict[str, Any]) -> Config:
    from minigen.training.run import make_config

    config = make_config(flags, args.preset, Path(args.config) if args.config else None)
    if not (config.data.data or config.teacher.tokens):
        raise UsageError("no training data: name a file, a folder or a glob")
    return config


def default_out(config: Config) -> Path:
    first = next(iter(config.data.data), config.teacher.model)
    return Path(f"{Path(first).stem or 'data'}-{'tuned' if config.model.from_model else config.model.model}")


class Reading:
    """What is prepared before a run, as a bar a task, where it is `shown`. A task of 0 parts has none to count."""

    def __init__(self, shown: bool = True) -> None:
        self.shown = shown

    def __enter__(self) -> Reading:
        self.bar: Bar | Busy | None = None
        self.name = ""
        self.opened = ExitStack()
        return self

    def __call__(self, what: str, done: int, total: int) -> None:
        from minigen.training.teacher import WRITING

        if not self.shown:
            return
        if what != self.name:
            self.opened.close()
            unit = "tokens" if what == WRITING else "bytes"
            self.name = what
            if total:
                self.bar = self.opened.enter_context(Bar(what, unit))
            else:
                self.bar = self.opened.enter_context(Busy(what))
        if isinstance(self.bar, Bar):
            self.bar.reach(done, total)

    def __exit__(self, *error: object) -> None:
        self.opened.close()


def say_data(setup: Setup) -> None:
    left = setup.dataset.left_out
    if left:
        names = first_of([str(path) for path in left], 3)
        print(f"minigen: warning: left out of the data: {names}", file=sys.stderr)


def finish(folder: Path, outcome: Outcome, *, adapter: bool) -> int:
    if outcome.stopped:
        print(f"stopped after step {outcome.step}, which is saved: go on with minigen train --resume {folder}")
        return 130
    try:
        draw(folder, quiet=True)
    except MinigenError as error:  # no matplotlib: the run is whole without a picture
        print(f"minigen: warning: no loss.png: {error}", file=sys.stderr)
    what = f" (the best, {outcome.published.name})" if outcome.published else ""
    kind, also = ("an adapter", f", or merge it: minigen convert {folder} OUT") if adapter else ("a model", "")
    print(f"done in {outcome.seconds:.0f} s: {folder} is {kind}{what}; try minigen generate {folder}{also}")
    return 0


def draw(folder: Path, quiet: bool = False) -> int:
    from minigen.training.log import read_log
    from minigen.training.plot import NAME, plot

    plot(read_log(folder), folder / NAME, folder.resolve().name)
    if not quiet:
        print(folder / NAME)
    return 0


def diagnose(args: argparse.Namespace) -> int:
    from minigen.backends.group import LAUNCHERS, launched
    from minigen.training.doctor import examine

    if name := launched():
        raise UsageError(f"--doctor checks in one process: start it without {LAUNCHERS[name]}")
    from ..display.tables import render, screen

    rows, failed = [], 0
    with Reading() as reading:
        for check in examine(wanted(args, flags_of(args)), reading):
            rows.append(["ok" if check.passed else "FAILED", check.name, check.found])
            failed += not check.passed
    print(render(["", "check", "found"], rows, *screen(), left=("", "check", "found")), end="")
    return 1 if failed else 0
