"""What a training run shows: one live line and validations above it on a terminal, plain lines everywhere else."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from .words import counted

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.live import Live
    from rich.text import Text

    from minigen.training.evaluate import Evaluation
    from minigen.training.reports import About, Report
    from minigen.training.setup import Setup

BAR = 20  # columns of the bar, where there is room


def make_display(shown: bool = True) -> Display:
    """For what stdout is; nothing where it is not to be `shown`."""
    if not shown:
        return Hidden()
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

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass

    def say(self, text: str, style: str = "") -> None:
        print(text, flush=True)

    def begin(self, about: About) -> None:
        s, c = about.setup, about.setup.config
        kind = s.hub["model_type"]
        adapter = f" and {about.trained:,} of an adapter of rank {c.model.lora_rank}" if s.lora is not None else ""
        self.say(
            f"{about.folder}: {kind}, {about.parameters:,} parameters{adapter}, "
            f"vocabulary {s.architecture.vocab_size:,}, context {c.model.context}"
        )
        train, held = s.dataset.train, s.dataset.valid
        where = s.ops.device if s.group.size == 1 else f"{s.group.size} x {c.run.device}"
        self.say(
            f"data: {train.tokens:,} tokens to train on ({counted(train.documents, 'document')}), "
            f"{held.tokens:,} to validate with ({counted(held.documents, 'document')}); {s.batches.mode}, "
            f"{s.batches.tokens_per_step:,} tokens a step, {s.batches.epoch_of(c.schedule.steps):.3g} epochs"
        )
        self.say(
            f"on {s.ops.name} ({where}, {s.ops.dtype}): matrix products at {about.peak / 1e9:,.0f} GFLOP/s; "
            "MFU counts 6 N + 12 L C T operations a token" + ("" if is_decoder(kind) else ", here 6 N")
        )
        if c.teacher.model:
            self.say(teacher_line(s))
        from minigen.backends import faster_dtype

        if faster := faster_dtype(s.ops):
            self.say(f"float32 products are made in full, without TF32: --dtype {faster} is faster on this GPU")
        if about.start:
            self.say(f"going on from step {about.start}")

    def step(self, report: Report, due: bool) -> None:
        if due:
            self.say("  ".join([f"step {report.step}/{report.steps}", *(text for _, text in figures(report))]))

    def evaluating(self, done: int, total: int) -> None:
        pass

    def evaluated(self, evaluation: Evaluation) -> None:
        self.say(evaluation_line(evaluation, self.width), "bold")
        if evaluation.sample:
            self.say("  " + shown(evaluation.sample), "dim")

    def saved(self, folder: Path) -> None:
        pass

    def stopping(self) -> None:
        self.say("stopping after this step; once more to stop at once, unsaved")


class Hidden(Display):
    def say(self, text: str, style: str = "") -> None:
        pass


class LiveDisplay(Display):
    """The live line holds what fits, the most telling first."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.report: Report | None = None
        self.doing = ""
        self.live: Live | None = None

    def __enter__(self) -> Display:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.live is not None:
            self.live.stop()

    def begin(self, about: About) -> None:
        from rich.live import Live

        super().begin(about)
        self.live = Live(self, console=self.console, refresh_per_second=5, transient=True, redirect_stdout=False)
        self.live.start()

    def say(self, text: str, style: str = "") -> None:
        from rich.text import Text

        self.console.print(Text(text, style), no_wrap=style == "dim", overflow="ellipsis" if style == "dim" else "fold")

    def step(self, report: Report, due: bool) -> None:
        self.report, self.doing = report, ""

    def evaluated(self, evaluation: Evaluation) -> None:
        self.width = self.console.width
        super().evaluated(evaluation)

    def evaluating(self, done: int, total: int) -> None:
        self.doing = f"validating {done}/{total}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        yield line(self.report, self.doing, options.max_width - 1)  # a terminal wraps at the last column


def line(report: Report | None, doing: str, width: int) -> Text:
    """Never more than `width` columns: the bar goes first, then the figures that tell least."""
    from rich.text import Text

    if report is None:
        return Text("the first step"[:width], "dim")
    head = f"{report.step}/{report.steps}"
    parts = [(9, doing)] if doing else []
    parts += figures(report)
    room, chosen = width - len(head), set[int]()
    for place in sorted(range(len(parts)), key=lambda i: -parts[i][0]):
        if len(parts[place][1]) + 2 <= room:
            chosen.add(place)
            room -= len(parts[place][1]) + 2
    bar = BAR if room > BAR else 0
    text = Text()
    if bar:
        full = round(bar * report.step / report.steps)
        text.append("━" * full, "green").append("━" * (bar - full), "grey37").append(" ")
    text.append(head[:width], "bold")
    for place, (_, part) in enumerate(parts):
        if place in chosen:
            text.append(f"  {part}")
    return text


def figures(report: Report) -> list[tuple[int, str]]:
    """In the order they are shown in, each with how much it tells."""
    return [
        (8, f"loss {report.smoothed:.4f}"),
        (1, f"this {report.loss:.4f}"),
        (3, f"lr {report.lr:.2e}"),
        (4, f"norm {report.grad_norm:.2f}"),
        (2, f"epoch {report.epoch:.2f}"),
        (0, f"tokens {short(report.tokens)}"),
        (6, f"{short(report.tokens_per_s)} tok/s"),
        (5, f"MFU {report.mfu:.0%}"),
        (7, f"{clock(report.eta)} left"),
    ]


def teacher_line(s: Setup) -> str:
    """What is learned from the teacher."""
    c, learned = s.config.teacher, []
    if s.soft is not None:
        learned.append(f"its probabilities (weight {c.weight:g}, temperature {c.temperature:g})")
    if c.tokens:
        learned.append("the text that it wrote" + (", as its tokenizer is another" if c.weight and not s.soft else ""))
    return f"teacher: {c.model}: {' and '.join(learned) or 'nothing, as its weight is 0'}"


def evaluation_line(e: Evaluation, width: int | None = None) -> str:
    """All that a validation found; in so many columns what fits, the most telling first."""
    positions = [loss for loss in e.positions if not math.isnan(loss)]  # rows of answers begin with a question
    ends = f"by position {positions[0]:.2f}…{positions[-1]:.2f}" if len(positions) > 1 else ""
    parts = [
        (9, f"step {e.step}"),
        (8, f"valid {e.loss:.4f}"),
        (3, f"perplexity {e.perplexity:.4g}"),
        (5, f"{e.bits_per_byte:.4f} bits/byte"),
        (4, f"train {e.train_loss:.4f} (gap {e.gap:+.4f})"),
        (1, ends),
        (7, "best" if e.best else ""),
    ]
    parts = [part for part in parts if part[1]]
    while width is not None and len(parts) > 2 and sum(len(text) + 2 for _, text in parts) - 2 > width:
        parts.remove(min(parts))
    return "  ".join(text for _, text in parts)


def shown(text: str) -> str:
    """A sample in one line."""
    return "".join(c if c.isprintable() else "⏎" if c == "\n" else " " for c in text.strip())


def short(number: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def is_decoder(kind: str) -> bool:
    return not kind.endswith("_lm")
