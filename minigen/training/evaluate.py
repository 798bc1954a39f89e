"""Validation: the losses on all validation data and on some training batches, and a sample."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from minigen.backends.base import Backend, Tree
from minigen.errors import SharedError
from minigen.generation.loop import generate
from minigen.generation.options import Options
from minigen.generation.reader import Runner
from minigen.generation.rows import Row
from minigen.models.architecture import Architecture
from minigen.tokenizer import Tokenizer
from minigen.training.batch import Batch
from minigen.training.trainer import Trainer

BUCKETS = 8  # parts of a row whose losses are reported
PROBES = 8  # training batches whose loss is measured, without dropout


@dataclass(frozen=True)
class Evaluation:
    """Losses in nats per token. `positions`: of each eighth of a row, NaN if it has no target."""

    step: int
    loss: float
    bits_per_byte: float
    train_loss: float
    positions: tuple[float, ...]
    sample: str
    seconds: float = 0.0
    best: bool = False

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss) if self.loss < 709 else math.inf

    @property
    def gap(self) -> float:
        return self.loss - self.train_loss

    def as_row(self) -> dict[str, Any]:
        """The values for the log, in which NaN is null."""
        row = asdict(self)
        row["perplexity"] = self.perplexity
        row["gap"] = self.gap
        row["positions"] = [None if math.isnan(x) else x for x in self.positions]
        return row


@dataclass(frozen=True)
class Sampler:
    """Generates one text, the same for the same weights."""

    ops: Backend
    architecture: Architecture
    params: Callable[[Tree], Tree]  # a trainer's weights -> the model's parameters on the device
    tokenizer: Tokenizer
    prompt: Sequence[int]
    tokens: int
    stop_ids: Collection[int] = ()

    def __call__(self, trainer: Trainer, averaged: bool) -> str:
        if not self.tokens:
            return ""
        room = self.tokens
        if self.architecture.context is not None:
            room = min(room, self.architecture.context - len(self.prompt))
        runner = Runner(
            self.ops, self.architecture, self.params(trainer.weights(averaged=averaged))
        )
        row = Row(list(self.prompt))
        for _ in generate(
            runner, [row], Options.of(max_tokens=max(room, 1), seed=0), self.stop_ids
        ):
            pass
        return self.tokenizer.decode([*self.prompt, *row.ids])


class MeanLosses(NamedTuple):
    """Losses in nats per token over all weighted targets."""

    loss: float  # NaN if there are no targets
    targets: int
    positions: tuple[float, ...]  # of each bucket of positions, NaN if it has no targets

    def bits_per_byte(self, byte_count: int) -> float:
        """Bits per byte of the text of all targets; infinite for a text without bytes."""
        if byte_count == 0:
            return math.inf
        return self.loss * self.targets / math.log(2) / byte_count


def mean_losses(
    trainer: Trainer, batches: Iterable[Batch], averaged: bool, on_batch: Callable[[], None]
) -> MeanLosses:
    """Measures the losses of some batches; with `averaged` by the averaged weights.

    All processes of a group are given the same batches, and each reads its share. `on_batch` is
    called after each batch that this process has read.

    Raises SharedError if the loss is not finite.
    """
    nats = np.zeros(BUCKETS)
    counts = np.zeros(BUCKETS)
    group = trainer.group
    for batch in itertools.islice(batches, group.rank, None, group.size):
        weights = batch.weights.astype(np.float64)
        T = weights.shape[1]
        bucket = np.arange(T) * BUCKETS // T
        losses = trainer.losses(batch, averaged=averaged)
        weighted = np.where(weights > 0, losses, 0.0) * weights
        nats += np.bincount(bucket, weighted.sum(0), BUCKETS)
        counts += np.bincount(bucket, weights.sum(0), BUCKETS)
        on_batch()
    nats, counts = np.array(group.sum_numbers([*nats, *counts])).reshape(2, BUCKETS)
    total, count = float(nats.sum()), float(counts.sum())
    if not math.isfinite(total):
        raise SharedError("the validation loss is not finite: lower the learning rate")
    positions = [ratio(float(x), float(n)) for x, n in zip(nats, counts, strict=True)]
    return MeanLosses(ratio(total, count), round(count), tuple(positions))


def ratio(total: float, count: float) -> float:
    """The mean of `count` numbers; NaN for none."""
    return total / count if count else math.nan
