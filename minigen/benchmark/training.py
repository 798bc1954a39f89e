"""Measures training: steps of the trainer of `minigen train`, on random tokens."""

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

SECONDS = 0.5  # a run makes steps for this long, and at least one
LR = 1e-3
BATCH, TOKENS = 8, 256  # of a step, by default
VOCABULARIES = {"char": 65, "bytes": 256, "gpt2": 50257}  # char: Shakespeare's, by default


@dataclass(frozen=True)
class TrainedSubject(Subject):
    """A model in training, from random weights even if it has a folder.

    If `dtype` is bfloat16, training is in mixed precision.
    """

    optimizer: Optimizer = field(default_factory=Optimizer)
    dropout: float = 0.0
    compile: bool = False
    deterministic: bool = True

    def session(self) -> Session:
        return TrainingSession(self)

    def takes(self, case: Case) -> bool:
        return case.kind == "train"


class TrainingSession(Session):
    """As Session, with training steps as the only test."""

    subject: TrainedSubject
    steps = 0

    def load(self) -> None:
        """Draws the weights. Raises UsageError for a dtype that cannot be used for training."""
        s = self.subject
        architecture = s.architecture()
        self.trainer = Trainer(
            self.ops,
            architecture,
            initialise(architecture.shapes(), SEED),
            s.optimizer,
            dropout=s.dropout,
            seed=SEED,
            compile=s.compile,
            deterministic=s.deterministic,
        )

    def step(self, batch: Batch) -> None:
        """Returns when the loss is known; on a GPU the update may run into the next step."""
        self.trainer.step([batch], LR, self.steps)

    def run(self, case: Case) -> Timed:
        """Mean seconds of a step (forward, backward and update), and seconds of each."""
        rng = np.random.default_rng(SEED + self.steps)
        steps: list[float] = []
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
    """(the fields of a TrainedSubject, all settings) of a preset of `minigen train` or a TOML file.

    Raises UsageError for an unknown recipe, and for one with an adapter or a teacher, whose steps
    are different.
    """
    path = Path(name)
    if name in PRESETS:
        config = make_config({}, name)
    elif path.is_file():
        config = make_config({}, None, path)
    else:
        raise UsageError(
            f"--recipe is {name!r}: choose {', '.join(PRESETS)}, or a TOML file of minigen train"
        )
    for setting, value in (
        ("lora_rank", config.model.lora_rank),
        ("teacher", config.teacher.model),
    ):
        if value:
            raise UsageError(
                f"{name} has {setting} = {value!r}: bench measures only the training of all "
                "weights on text"
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
        "optimizer": config.optimizer,
        "compile": config.run.compile,
        "deterministic": config.run.deterministic,
        "dropout": config.model.dropout,
    }
    return fields, config


def vocabulary_of(config: Config) -> int:
    """The vocabulary of a recipe, or of its tokenizer.

    Raises UsageError if that depends on files.
    """
    if config.model.vocab:
        return config.model.vocab
    kind, _, size = config.data.tokenizer.partition(":")
    if kind == "bpe" and size.isdecimal() and int(size) > 0:
        return int(size)
    if kind not in VOCABULARIES:
        raise UsageError(
            f"the recipe's tokenizer is {config.data.tokenizer!r}: add its size as vocab = N"
        )
    return VOCABULARIES[kind]
