"""The training loop: steps, reports, validations and checkpoints, until the end or a signal."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections import deque
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from minigen.backends import machine
from minigen.backends.group import barrier
from minigen.errors import MinigenError, SharedError
from minigen.models import costs
from minigen.training import checkpoint
from minigen.training.data import Batches
from minigen.training.evaluate import PROBES, Evaluation, Sampler, mean_losses
from minigen.training.log import RunLog
from minigen.training.position import Position
from minigen.training.reports import About, Outcome, Report, Reporter
from minigen.training.saving import checkpoint_of
from minigen.training.schedule import learning_rate
from minigen.training.setup import Setup
from minigen.training.signals import StopRequest
from minigen.training.trackers import Tracker, finite, trackers

SMOOTHING = 0.98  # of the training loss, per step
WINDOW = 50  # steps whose median duration gives the speed
EXPLODED = 2.0  # nats above uniform guessing from which no run recovers


class Loop:
    """One process's share of a run, from the last checkpoint on; only the first process writes."""

    def __init__(
        self, setup: Setup, folder: Path, reporter: Reporter, start: tuple[Path, Position] | None
    ) -> None:
        self.setup = setup
        self.config = setup.config
        self.folder = folder
        self.reporter = reporter
        self.trainer = setup.trainer()
        self.position = Position(0)
        if start is not None:
            self.position = start[1]
            self.trainer.restore(checkpoint.read_state(start[0]))
        self.averaged = setup.config.optimizer.ema > 0
        self.durations: deque[float] = deque(maxlen=WINDOW)
        self.evaluation_s = 0.0
        self.last: Evaluation | None = None
        self.stop = StopRequest()
        self.last_saved: int | None = None  # step
        self.leads = setup.group.rank == 0
        self.log: RunLog | None = None
        self.trackers: list[Tracker] = []
        c = setup.config
        # Training batches from other positions than the run's own, the same at each validation.
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
        """Trains. Raises MinigenError if training cannot continue; it names the last checkpoint."""
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
            with self.stop.at_signals(self.reporter.stopping):
                try:
                    self.train_until(steps)
                except MinigenError as error:
                    kind = SharedError if isinstance(error, SharedError) else MinigenError
                    raise kind(f"{error}; {self.what_is_saved()}") from error
        published = checkpoint.chosen(self.folder)
        done = self.position.step
        return Outcome(done, done < steps, published, self.last, time.perf_counter() - began)

    def train_until(self, steps: int) -> None:
        """Trains and validates until the last step or a signal, and saves a checkpoint there."""
        for step in range(self.position.step, steps):
            self.one_step(step)
            done = self.position.step
            if done % self.config.run.eval_every == 0 or done == steps:
                self.evaluate()
            if self.any_stop_requested():
                if self.last_saved != done:
                    self.save()
                break

    def begin(self) -> None:
        """Measures the machine's peak, and reports the beginning of the run."""
        s = self.setup
        peak = s.group.sum_numbers([machine.measure_peak(s.ops)])[0]  # of all devices
        self.share = costs.training_flops(s.architecture, self.config.model.context) / peak
        parameters = costs.parameters(s.architecture)
        trained = costs.parameters(s.lora or s.architecture)
        about = About(self.folder, s, parameters, trained, self.position.step, peak)
        self.add_to_log({"kind": "begin", **about.as_row(self.share * peak)})
        self.reporter.begin(about)

    def any_stop_requested(self) -> bool:
        """Whether any process got a signal: then all processes stop after the same step."""
        return bool(self.setup.group.sum_numbers([self.stop.received])[0])

    # -- steps --
    def one_step(self, step: int) -> None:
        began = time.perf_counter()
        batches = self.setup.batches
        lr = learning_rate(self.config.schedule, step)
        micro_batches = [batches.batch(step, micro) for micro in range(batches.micros)]
        result = self.trainer.step(micro_batches, lr, step)
        self.durations.append(time.perf_counter() - began)
        done = step + 1
        position = self.position
        self.position = replace(
            position,
            step=done,
            smoothed=SMOOTHING * position.smoothed + (1 - SMOOTHING) * result.loss,
            weight=SMOOTHING * position.weight + (1 - SMOOTHING),
        )
        smoothed = self.position.smoothed / self.position.weight
        step_s = statistics.median(self.durations)
        tokens_per_s = batches.tokens_per_step / step_s
        left = self.config.schedule.steps - done
        evaluations_left = left / self.config.run.eval_every
        report = Report(
            step=done,
            steps=self.config.schedule.steps,
            tokens=done * batches.tokens_per_step,
            epoch=batches.epoch_of(done),
            loss=result.loss,
            smoothed=smoothed,
            lr=lr,
            grad_norm=result.grad_norm,
            tokens_per_s=tokens_per_s,
            mfu=tokens_per_s * self.share,
            eta=left * step_s + evaluations_left * self.evaluation_s,
        )
        is_logged = done % self.config.run.log_every == 0 or left == 0 or step == 0
        if is_logged:
            row = asdict(report)
            del row["steps"]
            self.add_to_log({"kind": "step", **row})
            del row["step"], row["eta"]
            self.track("train/", done, row)
        self.reporter.step(report, is_logged)
        self.check_loss(smoothed, done, lr)

    def check_loss(self, smoothed: float, step: int, lr: float) -> None:
        """Raises SharedError if the smoothed training loss is far above that of guessing."""
        guess = math.log(self.setup.architecture.vocab_size)
        if self.setup.soft is not None:  # no teacher is further away from guessing than that
            guess = self.setup.soft.blend(guess, guess)
        if len(self.durations) >= 10 and smoothed > guess + EXPLODED:
            raise SharedError(
                f"the training loss is {smoothed:.2f} at step {step}, far above the {guess:.2f} "
                f"of guessing: lower the learning rate, which is {lr:g} there"
            )

    def add_to_log(self, row: dict[str, Any]) -> None:
        if self.log is not None:
            self.log.add(row)

    def track(self, prefix: str, step: int, values: dict[str, Any]) -> None:
        named = {prefix + name: value for name, value in finite(values).items()}
        for tracker in self.trackers:
            tracker.add(step, named)

    # -- validation --
    def evaluate(self) -> None:
        """Validates, reports that, and saves a checkpoint if one is due."""
        began = time.perf_counter()
        step = self.position.step
        data = self.setup.validation
        group = self.setup.group
        done = 0
        total = sum(len(range(group.rank, n, group.size)) for n in (len(data), self.probes))

        def on_batch() -> None:
            nonlocal done
            done += 1
            self.reporter.evaluating(done, total)

        valid = mean_losses(self.trainer, data, self.averaged, on_batch)
        probes = (self.probe.batch(i) for i in range(self.probes))
        train = mean_losses(self.trainer, probes, self.averaged, on_batch)
        is_best = self.position.best_loss is None or valid.loss < self.position.best_loss
        if is_best:
            self.position = replace(self.position, best_step=step, best_loss=valid.loss)
        sample = self.sampler(self.trainer, self.averaged) if self.leads else ""
        self.evaluation_s = time.perf_counter() - began
        self.last = Evaluation(
            step=step,
            loss=valid.loss,
            bits_per_byte=valid.bits_per_byte(data.bytes),
            train_loss=train.loss,
            positions=valid.positions,
            sample=sample,
            seconds=self.evaluation_s,
            best=is_best,
        )
        self.report_evaluation(self.last)
        every = self.config.run.save_every
        if is_best or every == 0 or step % every == 0 or step == self.config.schedule.steps:
            self.save()

    def report_evaluation(self, evaluation: Evaluation) -> None:
        row = evaluation.as_row()
        self.add_to_log({"kind": "evaluation", **row})
        scalars = ("loss", "perplexity", "bits_per_byte", "train_loss", "gap")
        self.track("valid/", evaluation.step, {name: row[name] for name in scalars})
        self.reporter.evaluated(evaluation)

    # -- checkpoints --
    def save(self) -> None:
        self.last_saved = self.position.step
        if self.leads:
            folder = checkpoint_of(self.setup, self.trainer, self.folder, self.position)
            checkpoint.prune(self.folder, self.config.run.keep)
            checkpoint.publish(self.folder)
            self.reporter.saved(folder)
        # If a process ended before, its launcher would end the first one too.
        barrier(self.setup.group)

    def what_is_saved(self) -> str:
        """The checkpoints of a run that failed, as the end of a message."""
        latest = checkpoint.pointed(self.folder, checkpoint.LATEST)
        best = checkpoint.pointed(self.folder, checkpoint.BEST)
        if latest is None:
            return "nothing was saved before"
        if best is None or best == latest:
            return f"the last checkpoint, {latest.name} in {self.folder}, is intact"
        return (
            f"the last checkpoint, {latest.name}, and the best, {best.name}, "
            f"in {self.folder} are intact"
        )
