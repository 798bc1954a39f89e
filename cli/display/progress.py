"""A bar on stderr with the time that is left, for a run of more than a moment."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

DELAY = 2.0  # seconds before it shows
NAME = 20  # characters of a file's name
MEMORY = 600.0  # seconds that the speed is taken over: items finish in groups, and a group may take long


class Bar:
    """Nothing at all where stderr is no terminal; else a bar that shows after DELAY and leaves no trace."""

    def __init__(self, name: str, unit: str, refresh: float = 10) -> None:
        self.unit, self.refresh = unit, refresh  # times a second that it is drawn, which is work too
        self.name = name if len(name) <= NAME else f"{name[: NAME - 1]}…"
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

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.timer is not None and self.progress is not None:
            self.timer.cancel()
            self.timer.join()
            self.progress.stop()

    def start(self, total: int) -> None:
        if self.progress is not None:
            self.task = self.progress.add_task(self.name, total=total)

    def step(self) -> None:
        if self.progress is not None and self.task is not None:
            self.progress.advance(self.task)

    def reach(self, done: int, total: int) -> None:
        """So many are done, where the caller counts; the total is told each time."""
        if self.progress is not None and self.task is None:
            self.start(total)
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, completed=done)


class Busy:
    """For work that nobody can count: after DELAY one line says that it goes on, on a terminal with its seconds."""

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

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.timer.cancel()
        self.timer.join()
        if self.progress is not None:
            self.progress.stop()

    def show(self) -> None:
        if self.progress is not None:
            self.progress.start()
        else:
            print(f"minigen: {self.name}, which may take a while", file=sys.stderr, flush=True)


def make_clock() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
    )


def make_progress(unit: str, refresh: float = 10) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),  # not to the edge: the ^C that a terminal writes would go on to the next line
        MofNCompleteColumn(),
        TextColumn(f"{unit},"),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        console=Console(stderr=True),
        transient=True,
        speed_estimate_period=MEMORY,
        refresh_per_second=refresh,
        redirect_stdout=False,
    )
