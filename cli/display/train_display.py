"""What a training run shows: a live line with validations above it, or plain lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from .train_lines import (
    data_line,
    device_line,
    evaluation_line,
    figures,
    line,
    model_line,
    one_line,
    teacher_line,
)

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.live import Live
    from rich.text import Text

    from minigen.training.evaluate import Evaluation
    from minigen.training.reports import About, Report


def make_display(visible: bool = True) -> Display:
    """The display that suits stdout, or one that shows nothing."""
    if not visible:
        return SilentDisplay()
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console(highlight=False)
        if console.is_interactive and not console.is_dumb_terminal:
            return LiveDisplay(console)
    return Display()


class Display:
    """Plain lines on stdout."""

    width: int | None = None  # columns

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def say(self, text: str, style: str = "") -> None:
        print(text, flush=True)

    def begin(self, about: About) -> None:
        """Describe the run: model, data, device, teacher."""
        from minigen.backends import faster_dtype

        setup = about.setup
        self.say(model_line(about))
        self.say(data_line(setup))
        self.say(device_line(about))
        if setup.config.teacher.model:
            self.say(teacher_line(setup))
        dtype = faster_dtype(setup.ops)
        if dtype:
            self.say(
                "float32 products are computed in full, without TF32: "
                f"--dtype {dtype} is faster on this GPU"
            )
        if about.start:
            self.say(f"continuing from step {about.start}")

    def step(self, report: Report, due: bool) -> None:
        if due:
            texts = [part.text for part in figures(report)]
            self.say("  ".join([f"step {report.step}/{report.steps}", *texts]))

    def evaluating(self, done: int, total: int) -> None:
        pass

    def evaluated(self, evaluation: Evaluation) -> None:
        self.say(evaluation_line(evaluation, self.width), "bold")
        if evaluation.sample:
            self.say("  " + one_line(evaluation.sample), "dim")

    def saved(self, folder: Path) -> None:
        pass

    def stopping(self) -> None:
        self.say("stopping after this step; press Ctrl-C again to stop at once without saving")


class SilentDisplay(Display):
    """Shows nothing, for all processes but the first."""

    def say(self, text: str, style: str = "") -> None:
        pass


class LiveDisplay(Display):
    """One line that is updated in place and holds what fits; the rest of the output above it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.report: Report | None = None
        self.doing = ""
        self.live: Live | None = None

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.live is not None:
            self.live.stop()

    def begin(self, about: About) -> None:
        from rich.live import Live

        super().begin(about)
        self.live = Live(
            self,
            console=self.console,
            refresh_per_second=5,
            transient=True,
            redirect_stdout=False,
        )
        self.live.start()

    def say(self, text: str, style: str = "") -> None:
        from rich.text import Text

        if style == "dim":  # a sample: one row is enough
            self.console.print(Text(text, style), no_wrap=True, overflow="ellipsis")
        else:
            self.console.print(Text(text, style), overflow="fold")

    def step(self, report: Report, due: bool) -> None:
        self.report = report
        self.doing = ""

    def evaluated(self, evaluation: Evaluation) -> None:
        self.width = self.console.width
        super().evaluated(evaluation)

    def evaluating(self, done: int, total: int) -> None:
        self.doing = f"validating {done}/{total}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        # One column less, because a terminal wraps at the last column.
        yield line(self.report, self.doing, options.max_width - 1)
