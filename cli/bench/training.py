"""What `bench --train` measures: which models, on how many tokens."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from minigen.errors import UsageError

from .subjects import fields_of, on_every_backend

if TYPE_CHECKING:
    from minigen.benchmark.plan import Case
    from minigen.benchmark.session import Subject


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training instead")
    group.add_argument(
        "--train", action="store_true",
        help="steps of training, forward, backward and update, from random weights: train b8x256 has 8 rows (-b) of "
        "256 tokens (-p), the defaults; tokens/s trained, p50 and p95 of a step, and as the limit what matrix products "
        "allow for 6 N + 12 L C T operations a token",
    )  # fmt: skip
    group.add_argument(
        "--recipe", metavar="NAME",
        help="train the model of a preset of minigen train, or of its TOML file, with its optimizer, dtype, batch and "
        "context (a char tokenizer has 65 characters unless the recipe says vocab)",
    )  # fmt: skip


def check(args: argparse.Namespace) -> None:
    """Raises UsageError for flags that do not go together."""
    if args.recipe and not args.train:
        raise UsageError("--recipe says what to train: add --train")
    if args.recipe and (args.models or args.shape):
        raise UsageError("--recipe brings its own model: drop the others, or --recipe")
    wrong = {"--cold": args.cold, "-n": args.n_gen is not None, "-d": args.n_depth is not None}
    wrong["--kv-bits"] = args.kv_bits != ["none"]
    for flag, given in wrong.items():
        if args.train and given:
            raise UsageError(
                f"{flag} is given with --train, which has rows (-b) of tokens (-p) alone: drop one of them"
            )


def training_of(args: argparse.Namespace) -> tuple[list[Subject], list[Case]]:
    """The models in training and the sizes of their steps."""
    from minigen.benchmark.plan import Case
    from minigen.benchmark.training import BATCH, TOKENS, TrainedSubject, recipe_of

    if args.recipe:
        fields, config = recipe_of(args.recipe)
        found, batch, tokens = [fields], config.schedule.batch, config.model.context or TOKENS
        args.dtype = [config.run.dtype] if args.dtype == [None] else args.dtype
    else:
        found, batch, tokens = fields_of(args), BATCH, TOKENS
    subjects = on_every_backend(TrainedSubject, found, args)
    contexts = [context for subject in subjects if (context := subject.architecture().context) is not None]
    lengths = args.n_prompt or [min([tokens, *contexts])]
    if 0 in lengths:
        raise UsageError("-p is 0: a row of training has 1 token or more")
    sizes = [(rows, length) for rows in args.batch_size or [batch] for length in lengths]
    return subjects, [Case("train", length, batch=rows) for rows, length in dict.fromkeys(sizes)]
