"""Training measured: steps of the trainer that `minigen train` runs, on random tokens."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minigen.backends.training import Optimizer
from minigen.benchmark.plan import Case
from minigen.benchmark.session import SEED, Session, Subject, Timed
from minigen.checkpoints.checkpoint import read_config
from minigen.checkpoints.hub import resolve
from minigen.errors import UsageError
from minigen.families.new import new_config
from minigen.layers.param import initialise
from minigen.training.batch import Batch
from minigen.training.config import Config
from minigen.training.model_files import CONTEXT
from minigen.training.presets import PRESETS
from minigen.training.run import make_config
from minigen.training.trainer import Trainer

SECONDS = 0.5  # a run makes steps for so long, one at least
LR = 1e-3
BATCH, TOKENS = 8, 256  # of a step, where nothing says otherwise
VOCABULARIES = {
    "char": 65,
    "bytes": 256,
    "gpt2": 50257,
}  # char: Shakespeare's, where a recipe does not say


@dataclass(frozen=True)
class TrainedSubject(Subject):
    """A model in training, from random weights whatever its folder, in mixed precision where `dtype` is bfloat16."""

    optimizer: Optimizer = field(default_factory=Optimizer)
    dropout: float = 0.0
    compile: bool = False
    deterministic: bool = True

    def session(self) -> Session:
        return TrainingSession(self)

    def takes(self, case: Case) -> bool:
        return case.kind == "train"


class TrainingSession(Session):
    subject: TrainedSubject
    steps = 0

    def load(self) -> None:
        """Draws the weights. Raises UsageError for a dtype that there is no training in."""
        s, architecture = self.subject, self.subject.architecture()
        params = initialise(architecture.shapes(), SEED)
        settings: dict[str, Any] = {"dropout": s.dropout, "seed": SEED, "compile": s.compile}
        settings["deterministic"] = s.deterministic
        self.trainer = Trainer(self.ops, architecture, params, s.optimizer, **settings)

    def step(self, batch: Batch) -> None:
        """Returns when the loss is known: on a GPU the update may still run, and counts to the next step."""
        self.trainer.step([batch], LR, self.steps)

    def run(self, case: Case) -> Timed:
        """Seconds of a step, forward, backward and update, by the mean of those that were made; and of each."""
        rng, steps = np.random.default_rng(SEED + self.steps), list[float]()
        vocabulary = self.subject.architecture().vocab_size
        while sum(steps) < SECONDS:
            ids = rng.integers(0, vocabulary, (case.batch, case.tokens + 1))
            began = time.perf_counter()
            batch = Batch(ids[:, :-1], ids[:, 1:], np.ones((case.batch, case.tokens), np.float32))
            self.step(batch)
            self.steps += 1
            steps.append(time.perf_counter() - began)
        return Timed(sum(steps) / len(steps), steps_s=steps)


def recipe_of(name: str) -> tuple[dict[str, Any], Config]:
    """The fields of a TrainedSubject that a preset of `minigen train` or its TOML file decides, and all its settings.

    Raises UsageError for what is no recipe, and for one with an adapter or a teacher, whose steps are others.
    """
    path = Path(name)
    if name not in PRESETS and not path.is_file():
        raise UsageError(
            f"--recipe is {name!r}: choose {', '.join(PRESETS)}, or a TOML file of minigen train"
        )
    config = make_config({}, name) if name in PRESETS else make_config({}, None, path)
    for what, value in (("lora_rank", config.model.lora_rank), ("teacher", config.teacher.model)):
        if value:
            raise UsageError(
                f"{name} has {what} = {value!r}: bench measures the training of all weights by text alone"
            )
    if config.model.from_model:
        hub: Mapping[str, Any] = read_config(resolve(config.model.from_model))
    else:
        config = config.replace(context=config.model.context or CONTEXT)
        hub = new_config(config.model, vocabulary_of(config), {}, config.run.dtype)
    fields: dict[str, Any] = {
        "model": f"{name} recipe",
        "config": hub,
        "folder": None,
        "stored": config.run.dtype,
    }
    fields |= {"optimizer": config.optimizer}
    fields |= {"compile": config.run.compile, "deterministic": config.run.deterministic}
    return fields | {"dropout": config.model.dropout}, config


def vocabulary_of(config: Config) -> int:
    """What the recipe says, or its tokenizer's size. Raises UsageError where that depends on files."""
    kind, _, size = config.data.tokenizer.partition(":")
    found = config.model.vocab or (
        int(size) if kind == "bpe" and size.isdecimal() else VOCABULARIES.get(kind)
    )
    if not found:
        raise UsageError(
            f"the recipe's tokenizer is {config.data.tokenizer!r}: say its size, vocab = N, beside it"
        )
    return found
