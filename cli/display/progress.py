"""Progress on stderr: a bar with the time left, or a clock for work that cannot be counted."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

DELAY = 2.0  # seconds before anything is shown
NAME = 20  # characters of a file's name that are shown
# Seconds over which the speed is averaged: items finish in groups, and a group may take long.
SPEED_PERIOD = 600.0
BAR_WIDTH = 16  # not to the edge: the ^C that a terminal writes would wrap to the next line


class Bar:
    """A bar that is shown after DELAY and erased at the end, if stderr is a terminal."""

    def __init__(self, name: str, unit: str, refresh: float = 10) -> None:
        """`unit` is what is counted; the bar is drawn `refresh` times per second."""
        self.unit, self.refresh = unit, refresh
        self.name = name
        if len(name) > NAME:
            self.name = f"{name[: NAME - 1]}…"
        self.progress: Progress | None = None
        self.task: TaskID | None = None
        self.timer: threading.Timer | None = None

    def __enter__(self) -> Bar:
        if sys.stderr.isatty():
            progress = make_progress(self.unit, self.refresh)
            if progress.console.is_interactive:
                self.progress = progress
                self.timer = threading.Timer(DELAY, progress.start)
                self.timer.daemon = True
                self.timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.timer is not None and self.progress is not None:
            self.timer.cancel()
            self.timer.join()
            self.progress.stop()

    def start(self, total: int) -> None:
        """Begin, with nothing done yet."""
        if self.progress is not None:
            self.task = self.progress.add_task(self.name, total=total)

    def step(self) -> None:
        """One more is done."""
        if self.progress is not None and self.task is not None:
            self.progress.advance(self.task)

    def reach(self, done: int, total: int) -> None:
        """`done` of `total` are done; for callers that count themselves, instead of `start`."""
        if self.progress is not None and self.task is None:
            self.start(total)
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, completed=done)


class Busy:
    """For work that cannot be counted: one line after DELAY, on a terminal with a clock."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.progress: Progress | None = None

    def __enter__(self) -> Busy:
        if sys.stderr.isatty():
            progress = make_clock()
            if progress.console.is_interactive:
                self.progress = progress
                progress.add_task(self.name, total=None)
        self.timer = threading.Timer(DELAY, self.show)
        self.timer.daemon = True
        self.timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.timer.cancel()
        self.timer.join()
        if self.progress is not None:
            self.progress.stop()

    def show(self) -> None:
        if self.progress is not None:
            self.progress.start()
        else:
            line = f"minigen: {self.name}, which may take a while"
            print(line, file=sys.stderr, flush=True)


def make_clock() -> Progress:
    """A moving bar with the seconds so far."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=BAR_WIDTH),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
    )


def make_progress(unit: str, refresh: float = 10) -> Progress:
    """A bar with the count and the time left."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=BAR_WIDTH),
        MofNCompleteColumn(),
        TextColumn(f"{unit},"),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        console=Console(stderr=True),
        transient=True,
        speed_estimate_period=SPEED_PERIOD,
        refresh_per_second=refresh,
        redirect_stdout=False,
    )
