"""The loop: steps, reports, validations and checkpoints, until the end or until someone says stop."""

from __future__ import annotations

import contextlib
import math
import signal
import statistics
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from minigen.backends import machine
from minigen.backends.group import barrier
from minigen.checkpoints import adapters
from minigen.checkpoints.saving import to_tensors
from minigen.errors import MinigenError, SharedError
from minigen.models import costs
from minigen.training import checkpoint
from minigen.training.checkpoint import Position
from minigen.training.data import Batches
from minigen.training.evaluate import PROBES, Evaluation, Sampler, mean_losses
from minigen.training.log import RunLog
from minigen.training.reports import About, Outcome, Report, Reporter
from minigen.training.schedule import learning_rate
from minigen.training.setup import Setup
from minigen.training.trackers import Tracker, finite, trackers
from minigen.training.trainer import Trainer

SMOOTHING = 0.98  # of the training loss, a step
WINDOW = 50  # steps that the speed is the median of
EXPLODED = 2.0  # nats above uniform guessing that no run comes back from


class Loop:
    """One process's share of a run, from its last checkpoint on; of several, the first one writes."""

    def __init__(
        self, setup: Setup, folder: Path, reporter: Reporter, start: tuple[Path, Position] | None
    ) -> None:
        self.setup, self.config, self.folder, self.reporter = setup, setup.config, folder, reporter
        self.trainer = setup.trainer()
        self.position = Position(0)
        if start is not None:
            self.position = start[1]
            self.trainer.restore(checkpoint.read_state(start[0]))
        self.averaged = setup.config.optimizer.ema > 0
        self.durations: deque[float] = deque(maxlen=WINDOW)
        self.evaluation_s = 0.0
        self.last: Evaluation | None = None
        self.asked = False  # to stop
        self.saved: int | None = None  # the last step that was
        self.leads = setup.group.rank == 0
        self.log: RunLog | None = None
        self.trackers: list[Tracker] = []
        c = setup.config
        # Training batches of other places than the run's own, the same at each validation.
        self.probe = Batches(
            setup.batches.tokens,
            setup.validation.batch,
            c.model.context,
            c.run.seed,
            mode="windows",
        )
        self.probes = min(PROBES, len(setup.validation))
        self.sampler = Sampler(
            setup.ops,
            setup.architecture,
            setup.params,
            setup.tokenizer,
            setup.prompt,
            c.run.sample_tokens,
            setup.stop_ids,
        )

    def run(self) -> Outcome:
        """Raises MinigenError where training cannot go on; the message names the last checkpoint."""
        began = time.perf_counter()
        steps = self.config.schedule.steps
        with contextlib.ExitStack() as stack:
            if self.leads:
                self.log = stack.enter_context(RunLog(self.folder, self.position.step))
                checkpoint.tidy(self.folder, self.position, self.config.run.keep)
                self.trackers = trackers(self.folder, self.config)
            for tracker in self.trackers:
                stack.callback(tracker.close)
            self.begin()
            with self.listening():
                try:
                    for step in range(self.position.step, steps):
                        self.one_step(step)
                        if (
                            self.position.step % self.config.run.eval_every == 0
                            or self.position.step == steps
                        ):
                            self.evaluate()
                        if self.stopping():
                            if self.saved != self.position.step:
                                self.save()
                            break
                except MinigenError as error:
                    kind = SharedError if isinstance(error, SharedError) else MinigenError
                    raise kind(f"{error}; {self.whole()}") from error
        published = checkpoint.chosen(self.folder)
        done = self.position.step
        return Outcome(done, done < steps, published, self.last, time.perf_counter() - began)

    def begin(self) -> None:
        s = self.setup
        peak = s.group.sum_numbers([machine.measure_peak(s.ops)])[0]  # of all devices
        self.share = costs.training_flops(s.architecture, self.config.model.context) / peak
        parameters, trained = (
            costs.parameters(s.architecture),
            costs.parameters(s.lora or s.architecture),
        )
        about = About(self.folder, s, parameters, trained, self.position.step, peak)
        self.note(
            {
                "kind": "begin", "step": self.position.step, "parameters": parameters, "trained": trained,
                "peak_flops": peak, "flops_per_token": self.share * peak, "backend": s.ops.name, "device": s.ops.device,
                "dtype": s.ops.dtype, "processes": s.group.size, "train_tokens": s.dataset.train.tokens,
                "valid_tokens": s.dataset.valid.tokens, **s.identity(),
            }
        )  # fmt: skip
        self.reporter.begin(about)

    def stopping(self) -> bool:
        """Whether any process was asked to stop: all do after the same step."""
        return bool(self.setup.group.sum_numbers([self.asked])[0])

    # -- a step -------------------------------------------------------------------------------------------------------
    def one_step(self, step: int) -> None:
        began = time.perf_counter()
        batches = self.setup.batches
        lr = learning_rate(self.config.schedule, step)
        found = self.trainer.step(
            [batches.batch(step, micro) for micro in range(batches.micros)], lr, step
        )
        self.durations.append(time.perf_counter() - began)
        p, done = self.position, step + 1
        self.position = replace(
            p,
            step=done,
            smoothed=SMOOTHING * p.smoothed + (1 - SMOOTHING) * found.loss,
            weight=SMOOTHING * p.weight + (1 - SMOOTHING),
        )
        smoothed = self.position.smoothed / self.position.weight
        usual = statistics.median(self.durations)
        speed = batches.tokens_per_step / usual
        left = self.config.schedule.steps - done
        report = Report(
            step=done,
            steps=self.config.schedule.steps,
            tokens=done * batches.tokens_per_step,
            epoch=batches.epoch_of(done),
            loss=found.loss,
            smoothed=smoothed,
            lr=lr,
            grad_norm=found.grad_norm,
            tokens_per_s=speed,
            mfu=speed * self.share,
            eta=left * usual + left / self.config.run.eval_every * self.evaluation_s,
        )
        due = done % self.config.run.log_every == 0 or left == 0 or step == 0
        if due:
            row = {name: x for name, x in asdict(report).items() if name != "steps"}
            self.note({"kind": "step", **row})
            self.track(
                "train/", done, {name: x for name, x in row.items() if name not in ("step", "eta")}
            )
        self.reporter.step(report, due)
        guess = math.log(self.setup.architecture.vocab_size)
        if self.setup.soft is not None:  # guessing is no further from any teacher
            guess = self.setup.soft.blend(guess, guess)
        if len(self.durations) >= 10 and smoothed > guess + EXPLODED:
            raise SharedError(
                f"the training loss is {smoothed:.2f} at step {done}, far above the {guess:.2f} of guessing: "
                f"lower the learning rate, which is {lr:g} there"
            )

    def note(self, row: dict[str, Any]) -> None:
        if self.log is not None:
            self.log.add(row)

    def track(self, prefix: str, step: int, values: dict[str, Any]) -> None:
        for tracker in self.trackers:
            tracker.add(step, {prefix + name: x for name, x in finite(values).items()})

    # -- a validation -------------------------------------------------------------------------------------------------
    def evaluate(self) -> None:
        began = time.perf_counter()
        held, step, seen, group = self.setup.validation, self.position.step, 0, self.setup.group
        total = sum(
            len(range(group.rank, count, group.size)) for count in (len(held), self.probes)
        )  # of this process

        def one() -> None:
            nonlocal seen
            seen += 1
            self.reporter.evaluating(seen, total)

        loss, targets, positions = mean_losses(self.trainer, held, self.averaged, one)
        probes = (self.probe.batch(i) for i in range(self.probes))
        train_loss = mean_losses(self.trainer, probes, self.averaged, one)[0]
        bits = loss * targets / math.log(2) / held.bytes if held.bytes else math.inf
        best = self.position.best_loss is None or loss < self.position.best_loss
        if best:
            self.position = replace(self.position, best_step=step, best_loss=loss)
        sample = self.sampler(self.trainer, self.averaged) if self.leads else ""
        self.evaluation_s = time.perf_counter() - began
        found = Evaluation(step, loss, bits, train_loss, positions, sample, self.evaluation_s, best)
        row = asdict(found) | {"perplexity": found.perplexity, "gap": found.gap}
        row["positions"] = [None if math.isnan(x) else x for x in positions]
        self.note({"kind": "evaluation", **row})
        scalars = ("loss", "perplexity", "bits_per_byte", "train_loss", "gap")
        self.track("valid/", step, {name: row[name] for name in scalars})
        self.last = found
        self.reporter.evaluated(found)
        every = self.config.run.save_every
        if best or every == 0 or step % every == 0 or step == self.config.schedule.steps:
            self.save()

    # -- what is kept -------------------------------------------------------------------------------------------------
    def save(self) -> None:
        self.saved = self.position.step
        if self.leads:
            folder = checkpoint_of(self.setup, self.trainer, self.folder, self.position)
            checkpoint.prune(self.folder, self.config.run.keep)
            checkpoint.publish(self.folder)
            self.reporter.saved(folder)
        barrier(self.setup.group)  # nobody ends before: a launcher would end the first one too

    def whole(self) -> str:
        """What a run that broke off has left."""
        latest = checkpoint.pointed(self.folder, checkpoint.LATEST)
        best = checkpoint.pointed(self.folder, checkpoint.BEST)
        if latest is None:
            return "nothing was saved before"
        also = f", and the best, {best.name}," if best not in (None, latest) else ""
        return f"the last checkpoint, {latest.name}{also} in {self.folder} is whole"

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM let the step end first; a second one does not wait."""

        def ask(number: int, frame: Any) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True
            self.reporter.stopping()

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[signal.Signals, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def checkpoint_of(setup: Setup, trainer: Trainer, folder: Path, position: Position) -> Path:
    """Saves a trainer in a run's folder: the averaged weights, where it averages them; of LoRA's runs, the adapter."""
    position = replace(position, config=setup.config.values(), **setup.identity())
    weights, dtype, lora = trainer.weights(averaged=True), setup.config.run.save_dtype, setup.lora
    if lora is None:
        tensors = to_tensors(setup.architecture, setup.family, weights)
        return checkpoint.save(
            folder, position, setup.model_files(), tensors, dtype, trainer.state()
        )
    name, about = adapters.WEIGHTS, {adapters.BASE_KEY: lora.fingerprint}
    return checkpoint.save(
        folder,
        position,
        setup.model_files(),
        lora.tensors(weights),
        dtype,
        trainer.state(),
        name,
        about,
    )
