"""The lines of a training run: its description, the figures of a step, a validation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.text import Text

    from minigen.training.evaluate import Evaluation
    from minigen.training.reports import About, Report
    from minigen.training.setup import Setup

BAR = 20  # columns of the bar, if there is room


class Part(NamedTuple):
    """A part of a line; where the line is too narrow, parts of low priority are left out."""

    priority: int
    text: str


def line(report: Report | None, doing: str, width: int) -> Text:
    """The live line, of which the bar and figures that do not fit into `width` are left out."""
    from rich.text import Text

    if report is None:
        return Text("the first step"[:width], "dim")
    head = f"{report.step}/{report.steps}"
    parts = figures(report)
    if doing:
        parts.insert(0, Part(9, doing))
    room = width - len(head)
    chosen: set[Part] = set()
    for part in sorted(parts, reverse=True):
        columns = len(part.text) + 2
        if columns <= room:
            chosen.add(part)
            room -= columns
    text = Text()
    if room > BAR:
        full = round(BAR * report.step / report.steps)
        text.append("━" * full, "green").append("━" * (BAR - full), "grey37").append(" ")
    text.append(head[:width], "bold")
    for part in parts:
        if part in chosen:
            text.append(f"  {part.text}")
    return text


def figures(report: Report) -> list[Part]:
    """The figures of a step, in the order in which they are shown."""
    return [
        Part(8, f"loss {report.smoothed:.4f}"),
        Part(1, f"this {report.loss:.4f}"),
        Part(3, f"lr {report.lr:.2e}"),
        Part(4, f"norm {report.grad_norm:.2f}"),
        Part(2, f"epoch {report.epoch:.2f}"),
        Part(0, f"tokens {short(report.tokens)}"),
        Part(6, f"{short(report.tokens_per_s)} tok/s"),
        Part(5, f"MFU {report.mfu:.0%}"),
        Part(7, f"{clock(report.eta)} left"),
    ]


def model_line(about: About) -> str:
    setup = about.setup
    parameters = f"{about.parameters:,} parameters"
    if setup.lora is not None:
        rank = setup.config.model.lora_rank
        parameters += f" and {about.trained:,} of an adapter of rank {rank}"
    return (
        f"{about.folder}: {setup.hub['model_type']}, {parameters}, "
        f"vocabulary {setup.architecture.vocab_size:,}, context {setup.config.model.context}"
    )


def data_line(setup: Setup) -> str:
    train, valid = setup.dataset.train, setup.dataset.valid
    batches = setup.batches
    epochs = batches.epoch_of(setup.config.schedule.steps)
    return (
        f"data: {train.tokens:,} tokens to train on ({plural(train.documents, 'document')}), "
        f"{valid.tokens:,} to validate with ({plural(valid.documents, 'document')}); "
        f"{batches.mode}, {batches.tokens_per_step:,} tokens per step, {epochs:.3g} epochs"
    )


def device_line(about: About) -> str:
    setup = about.setup
    device = setup.ops.device
    if setup.group.size > 1:
        device = f"{setup.group.size} x {setup.config.run.device}"
    operations = "6 N"
    if is_decoder(setup.hub["model_type"]):
        operations = "6 N + 12 L C T"
    return (
        f"on {setup.ops.name} ({device}, {setup.ops.dtype}): "
        f"matrix products at {about.peak / 1e9:,.0f} GFLOP/s; "
        f"MFU counts {operations} operations per token"
    )


def teacher_line(setup: Setup) -> str:
    """What is learned from the teacher."""
    teacher = setup.config.teacher
    learned = []
    if setup.soft is not None:
        weight = f"weight {teacher.weight:g}, temperature {teacher.temperature:g}"
        learned.append(f"its probabilities ({weight})")
    if teacher.tokens:
        text = "the text that it wrote"
        if teacher.weight and setup.soft is None:
            text += ", because its tokenizer is different"
        learned.append(text)
    if not learned:
        learned.append("nothing, because its weight is 0")
    return f"teacher: {teacher.model}: {' and '.join(learned)}"


def evaluation_line(evaluation: Evaluation, width: int | None = None) -> str:
    """The results of a validation; of them what fits into `width` columns."""
    train_loss = f"train {evaluation.train_loss:.4f} (gap {evaluation.gap:+.4f})"
    parts = [
        Part(9, f"step {evaluation.step}"),
        Part(8, f"valid {evaluation.loss:.4f}"),
        Part(3, f"perplexity {evaluation.perplexity:.4g}"),
        Part(5, f"{evaluation.bits_per_byte:.4f} bits/byte"),
        Part(4, train_loss),
    ]
    # Positions that only questions have, in chats of which the answers alone are learned, are NaN.
    positions = [loss for loss in evaluation.positions if not math.isnan(loss)]
    if len(positions) > 1:
        parts.append(Part(1, f"by position {positions[0]:.2f}…{positions[-1]:.2f}"))
    if evaluation.best:
        parts.append(Part(7, "best"))
    text = joined(parts)
    while width is not None and len(parts) > 2 and len(text) > width:
        parts.remove(min(parts))
        text = joined(parts)
    return text


def joined(parts: list[Part]) -> str:
    return "  ".join(part.text for part in parts)


def one_line(text: str) -> str:
    """A sample in one line."""
    line = ""
    for char in text.strip():
        if char.isprintable():
            line += char
        elif char == "\n":
            line += "⏎"
        else:
            line += " "
    return line


def short(number: float) -> str:
    """1.23M, 41.2k."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def clock(seconds: float) -> str:
    """1:02:05, or 2:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}"


def plural(count: int, noun: str) -> str:
    """1 document, 2 documents."""
    if count == 1:
        return f"{count:,} {noun}"
    return f"{count:,} {noun}s"


def is_decoder(kind: str) -> bool:
    return not kind.endswith("_lm")
