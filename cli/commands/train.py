"""`minigen train`: train a model on text files."""

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
from ..setting_flags import add_flag

if TYPE_CHECKING:
    from minigen.backends.group import Group
    from minigen.training.config import Config
    from minigen.training.reports import Outcome
    from minigen.training.run import Start
    from minigen.training.setup import Setup

# Seconds that the first process has to report an error, before a launcher kills it because another
# process ended.
FIRST = 1.0
TITLES = {
    "model": "the model",
    "data": "the data",
    "teacher": "a teacher",
    "optimizer": "the optimizer",
    "schedule": "the schedule",
}


def add_arguments(parser: Parser) -> None:
    from minigen.training.config import SETTINGS
    from minigen.training.presets import PRESETS

    text = SETTINGS["data"][1].metadata["help"]
    parser.also(parser.add_argument("data", nargs="*", metavar="DATA", help=text), "--data")
    parser.add_argument(
        "--out", metavar="DIR", help="folder of the run (default: DATA-MODEL in the current folder)"
    )
    parser.add_argument("--preset", choices=PRESETS, help="a set of settings that belong together")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="read settings from a TOML file, such as the train.toml of another run",
    )
    what = parser.add_argument_group("instead of a new run").add_mutually_exclusive_group()
    what.add_argument(
        "--resume", metavar="RUN", help="continue a run exactly from its last checkpoint"
    )
    what.add_argument(
        "--doctor",
        action="store_true",
        help="check the settings, the data and the model, without training",
    )
    what.add_argument("--plot", metavar="RUN", help="plot the losses of a run to RUN/loss.png")
    groups: dict[str, Any] = {}
    for name, (group, f) in SETTINGS.items():
        if group not in groups:
            groups[group] = parser.add_argument_group(TITLES.get(group, "the run"))
        if name != "data":
            add_flag(groups[group], name, f)


def flags_of(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given as flags."""
    from minigen.training.config import SETTINGS

    given = {}
    for name in SETTINGS:
        if hasattr(args, name):
            given[name] = getattr(args, name)
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
        logging.getLogger("minigen").setLevel(logging.ERROR)  # only the first process warns
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
    """The whole run in this process; of several processes only the first one prints."""
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
    """The settings of a new run, or None to continue one; and its folder."""
    if args.resume is None:
        config = config_from_args(args, flags)
        if args.out:
            return config, Path(args.out)
        return config, default_out(config)
    for name in ("out", "preset", "config"):
        if getattr(args, name) is not None:
            raise UsageError(f"--resume continues with the settings of the run: drop --{name}")
    return None, Path(args.resume)


def config_from_args(args: argparse.Namespace, flags: dict[str, Any]) -> Config:
    from minigen.training.run import make_config

    config = make_config(flags, args.preset, Path(args.config) if args.config else None)
    if not (config.data.data or config.teacher.tokens):
        raise UsageError("no training data: name a file, a folder or a glob")
    return config


def default_out(config: Config) -> Path:
    """DATA-MODEL, or DATA-tuned, in the current folder."""
    source = config.teacher.model
    if config.data.data:
        source = config.data.data[0]
    model = config.model.model
    if config.model.from_model:
        model = "tuned"
    return Path(f"{Path(source).stem or 'data'}-{model}")


class Reading:
    """Shows the preparation of a run: a bar per task, or a clock for a task of 0 parts.

    Nothing if not `shown`.
    """

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
        print(
            f"stopped and saved after step {outcome.step}: "
            f"continue with minigen train --resume {folder}"
        )
        return 130
    try:
        draw(folder, quiet=True)
    except MinigenError as error:  # no matplotlib: the run is complete without a plot
        print(f"minigen: warning: no loss.png: {error}", file=sys.stderr)
    model = "an adapter" if adapter else "a model"
    if outcome.published:
        model += f" (the best, {outcome.published.name})"
    advice = f"try minigen generate {folder}"
    if adapter:
        advice += f", or merge it: minigen convert {folder} OUT"
    print(f"done in {outcome.seconds:.0f} s: {folder} is {model}; {advice}")
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
        for check in examine(config_from_args(args, flags_of(args)), reading):
            rows.append(["ok" if check.passed else "FAILED", check.name, check.found])
            failed += not check.passed
    print(render(["", "check", "found"], rows, *screen(), left=("", "check", "found")), end="")
    return 1 if failed else 0
