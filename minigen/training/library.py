"""Training as a function, for programs: the command `minigen train` without its display."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigen.errors import UsageError
from minigen.training.evaluate import Evaluation
from minigen.training.loop import Loop
from minigen.training.reports import About, Report, Reporter
from minigen.training.run import begin, make_config, resume

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from minigen.training.settings import TrainSettings

OnStep = Callable[[Report], None]


@dataclass(frozen=True)
class Trained:
    """What a run gave.

    Attributes:
        folder: a model, or with `lora_rank` an adapter, as `minigen.load` takes it.
        step: the last one that was made.
        stopped: whether a signal ended the run; `resume` continues it.
        validation_loss: nats per token at the end; None where nothing validates.
    """

    folder: Path
    step: int
    stopped: bool
    validation_loss: float | None


class StepReporter(Reporter):
    """Tells a function of each step, and nobody of the rest."""

    def __init__(self, on_step: OnStep | None) -> None:
        self.on_step = on_step

    def begin(self, about: About) -> None:
        pass

    def step(self, report: Report, due: bool) -> None:
        if self.on_step is not None:
            self.on_step(report)

    def evaluating(self, done: int, total: int) -> None:
        pass

    def evaluated(self, evaluation: Evaluation) -> None:
        pass

    def saved(self, folder: Path) -> None:
        pass

    def stopping(self) -> None:
        pass


def train(
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    preset: str | None = None,
    resume_from: str | os.PathLike[str] | None = None,
    on_step: OnStep | None = None,
    **settings: Unpack[TrainSettings],
) -> Trained:
    """Trains a model on text, in this process, as `minigen train` does.

    Args:
        data: files, folders or globs of text; None where `teacher_tokens` makes the text, or with `resume_from`.
        out: the folder of the run, which becomes a model folder.
        preset: a set of settings by name, which `settings` change.
        resume_from: the folder of a run that was interrupted; of `settings` only those that change no number.
        on_step: called after each step with its Report (step, loss, learning rate, tokens per second).
        settings: those of `minigen train --help`, with underscores; `from_model` for `--from`.

    Returns:
        Trained, with the folder that `minigen.load` takes.

    Raises UsageError for a setting that is unknown or out of range, no data, or a folder that is there already,
    MinigenError for data or a model that cannot be used.
    """
    named: dict[str, Any] = {**settings}
    if "from_model" in named:
        named["from"] = named.pop("from_model")
    if data is not None:
        paths = [data] if isinstance(data, str | os.PathLike) else data
        named["data"] = tuple(os.fspath(path) for path in paths)
    if resume_from is not None:
        folder = Path(resume_from)
        if out is not None or preset is not None:
            raise UsageError(
                "resume_from continues with the settings of the run: drop out and preset"
            )
        setup, start = resume(folder, named)
    else:
        config = make_config(named, preset)
        if not (config.data.data or config.teacher.tokens):
            raise UsageError("no training data: name a file, a folder or a glob")
        if out is None:
            raise UsageError("out is missing: name the folder of the run")
        folder = Path(out)
        setup, start = begin(config, folder), None
    outcome = Loop(setup, folder, StepReporter(on_step), start).run()
    loss = None if outcome.last is None else outcome.last.loss
    return Trained(folder, outcome.step, outcome.stopped, loss)
