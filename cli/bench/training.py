"""What `bench --train` measures: which models, on how many tokens."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from minigen.errors import UsageError

from .subjects import fields_of, on_every_backend

if TYPE_CHECKING:
    from minigen.benchmark.plan import Case
    from minigen.benchmark.session import Subject

TRAIN = (
    "measure training steps (forward, backward and update) of models with random weights. The test "
    "train b8x256 has 8 rows (-b) of 256 tokens (-p), the default. Reports the tokens per second, "
    "and the median and the 95th percentile of a step; the limit is what matrix products allow at "
    "6 N + 12 L C T operations per token"
)
RECIPE = (
    "with --train: the model of a preset of minigen train, or of its TOML file, with its "
    "optimizer, dtype, batch and context (a char tokenizer has 65 characters unless the recipe "
    "sets vocab)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --train and --recipe."""
    group = parser.add_argument_group("training instead of generation")
    group.add_argument("--train", action="store_true", help=TRAIN)
    group.add_argument("--recipe", metavar="NAME", help=RECIPE)


def check(args: argparse.Namespace) -> None:
    """Raises UsageError for flags that do not go together."""
    if args.recipe and not args.train:
        raise UsageError("--recipe names what to train: add --train")
    if args.recipe and (args.models or args.shape):
        raise UsageError("--recipe has a model of its own: drop the other models, or --recipe")
    if not args.train:
        return
    not_for_training = {
        "--cold": args.cold,
        "-n": args.n_gen is not None,
        "-d": args.n_depth is not None,
        "--kv-bits": args.kv_bits != ["none"],
    }
    for flag, given in not_for_training.items():
        if given:
            raise UsageError(
                f"{flag} does not go with --train, which takes only rows (-b) and tokens (-p): "
                "drop one of them"
            )


def training_of(args: argparse.Namespace) -> tuple[list[Subject], list[Case]]:
    """The models to train, and the sizes of their steps."""
    from minigen.benchmark.plan import Case
    from minigen.benchmark.training import BATCH, TOKENS, TrainedSubject, recipe_of

    if args.recipe:
        fields, config = recipe_of(args.recipe)
        models = [fields]
        batch = config.schedule.batch
        tokens = config.model.context or TOKENS
        if args.dtype == [None]:
            args.dtype = [config.run.dtype]
    else:
        models, batch, tokens = fields_of(args), BATCH, TOKENS
    subjects = on_every_backend(TrainedSubject, models, args)
    for subject in subjects:
        context = subject.architecture().context
        if context is not None:
            tokens = min(tokens, context)
    lengths = args.n_prompt or [tokens]
    if 0 in lengths:
        raise UsageError("-p is 0: a row of training has at least 1 token")
    cases = []
    for rows in args.batch_size or [batch]:
        for length in lengths:
            case = Case("train", length, batch=rows)
            if case not in cases:
                cases.append(case)
    return subjects, cases
