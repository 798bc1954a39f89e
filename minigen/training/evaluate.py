"""What a validation says: the whole validation side, some training batches, and a sample."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

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

BUCKETS = 8  # that positions in a row are divided into
PROBES = 8  # training batches that the loss on training data is measured on, without dropout

Progress = Callable[[int, int], None]  # batches done, of all


@dataclass(frozen=True)
class Evaluation:
    """Losses in nats a token. `positions`: that of each eighth of a row, NaN where none has a target."""

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


@dataclass(frozen=True)
class Sampler:
    """Writes one text, the same for the same weights."""

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


def mean_losses(
    trainer: Trainer,
    batches: Iterable[Batch],
    averaged: bool,
    done: Callable[[], None] = lambda: None,
) -> tuple[float, int, tuple[float, ...]]:
    """Nats a token over all weighted targets, how many there were, and the nats a token of each bucket of positions.

    The processes of a group are given the same batches, and each reads those that fall to it in turn.

    Raises SharedError where the loss is not finite.
    """
    nats, counts, group = np.zeros(BUCKETS), np.zeros(BUCKETS), trainer.group
    for batch in itertools.islice(batches, group.rank, None, group.size):
        weights = batch.weights.astype(np.float64)
        T = weights.shape[1]
        bucket = np.arange(T) * BUCKETS // T
        found = np.where(weights > 0, trainer.losses(batch, averaged=averaged), 0.0) * weights
        nats += np.bincount(bucket, found.sum(0), BUCKETS)
        counts += np.bincount(bucket, weights.sum(0), BUCKETS)
        done()
    nats, counts = np.array(group.sum_numbers([*nats, *counts])).reshape(2, BUCKETS)
    total, count = float(nats.sum()), float(counts.sum())
    if not math.isfinite(total):
        raise SharedError("the validation loss is not finite: lower the learning rate")
    each = tuple(float(x / n) if n else math.nan for x, n in zip(nats, counts, strict=True))
    return (total / count if count else math.nan), round(count), each
