"""What a run reads: its documents as tokens, its batches, the rows that validate, and the prompt of its samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from minigen.backends.group import Group
from minigen.errors import UsageError
from minigen.models.architecture import Architecture
from minigen.tokenizer import Tokenizer
from minigen.training.chat_formats import RunTemplate
from minigen.training.config import Config
from minigen.training.data import Batches, Dataset, Validation, prepare, validation
from minigen.training.model_files import first_ids

Progress = Callable[
    [str, int, int], None
]  # what is being read, bytes done, of all (0: nobody knows)


def read_dataset(
    config: Config,
    tokenizer: Tokenizer,
    folder: Path,
    chat: RunTemplate | None,
    written: Callable[[], list[str]],
    progress: Progress,
) -> Dataset:
    """The tokens to train on and to validate with; `written` gives the files of the teacher's text."""
    data = config.data
    return prepare(
        data.data,
        tokenizer,
        folder,
        chat=chat,
        separator=data.separator or None,
        valid=data.valid,
        valid_sources=data.valid_data,
        train_sources=written(),
        progress=lambda done, total: progress("reading the data", done, total),
    )


def make_batches(config: Config, dataset: Dataset, group: Group) -> Batches:
    schedule = config.schedule
    mode: Any = None if config.data.mode == "auto" else config.data.mode
    micros = schedule.accumulate * group.size
    return Batches(
        dataset.train,
        schedule.batch,
        config.model.context,
        config.run.seed,
        mode=mode,
        micros=micros,
    )


def make_validation(
    config: Config, dataset: Dataset, mode: Any, architecture: Architecture
) -> Validation:
    """All rows that validate, in batches of one size.

    They cost no gradient, so there are more of them at once than in training, where the logits are not too large.
    """
    context = config.model.context
    rows = validation(dataset.valid, 1, context, mode)
    rows_that_fit = min(8192 // context, 2**24 // (context * architecture.vocab_size))
    passes = ceil_div(len(rows), max(config.schedule.batch, rows_that_fit))
    return replace(rows, batch=ceil_div(len(rows), passes))


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def sample_prompt(
    config: Config, tokenizer: Tokenizer, dataset: Dataset, architecture: Architecture
) -> tuple[int, ...]:
    """The ids that a sample begins with. Raises UsageError where no token fits after them."""
    if config.run.prompt:
        ids = tokenizer.encode(config.run.prompt)
    elif not (ids := first_ids(tokenizer)):
        ids = dataset.valid.read(int(dataset.valid.index["start"][0]), 1)[0].tolist()
    if architecture.context is not None and len(ids) >= architecture.context:
        raise UsageError(
            f"the prompt of the sample has {len(ids)} tokens and the context is {architecture.context}"
        )
    return tuple(ids)
