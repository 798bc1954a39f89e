"""The flags that set how tokens are chosen, for every command that generates text."""

from __future__ import annotations

import argparse
from typing import Any

# flag -> (setting, type, help). A flag that is not given leaves the library's default.
FLAGS: dict[str, tuple[str, Any, str]] = {
    "--temp": ("temperature", float, "sampling temperature; 0: greedy decoding (default: 0.8)"),
    "--top-k": ("top_k", int, "sample from the K most likely tokens only"),
    "--top-p": (
        "top_p",
        float,
        "sample from the most likely tokens that together have this probability (default: 0.95)",
    ),
    "--min-p": (
        "min_p",
        float,
        "drop tokens less likely than this fraction of the most likely token's probability",
    ),
    "--typical-p": (
        "typical_p",
        float,
        "locally typical sampling: keep the tokens of most typical information content "
        "that together have this probability",
    ),
    "--epsilon-cutoff": ("epsilon_cutoff", float, "drop tokens below this probability"),
    "--eta-cutoff": (
        "eta_cutoff",
        float,
        "drop tokens below this probability, or a lower one where the entropy is high",
    ),
    "--repetition-penalty": (
        "repetition_penalty",
        float,
        "make tokens that are already in the text less likely, if above 1",
    ),
    "--presence-penalty": (
        "presence_penalty",
        float,
        "subtract this from the logit of every token that was generated before",
    ),
    "--frequency-penalty": (
        "frequency_penalty",
        float,
        "subtract this from a token's logit for each time that it was generated before",
    ),
    "--no-repeat-ngram": (
        "no_repeat_ngram_size",
        int,
        "never repeat a sequence of this many tokens",
    ),
}


SEED = (
    "random seed: the same seed gives the same text; in float32 also on the other backend, "
    "and whether alone or in a batch"
)


def add_sampling_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the flags in a group of their own, and return the group."""
    group = parser.add_argument_group("sampling")
    group.add_argument("-s", "--seed", type=int, metavar="N", help=SEED)
    for flag, (setting, kind, text) in FLAGS.items():
        metavar = "N" if kind is int else "X"
        group.add_argument(flag, dest=setting, type=kind, metavar=metavar, help=text)
    group.add_argument(
        "--logit-bias",
        action="append",
        default=[],
        type=bias,
        metavar="ID=BIAS",
        help="add a bias to the logit of a token, by its id; may be repeated",
    )
    return group


def bias(text: str) -> tuple[int, float]:
    """The value of --logit-bias."""
    token, _, value = text.partition("=")
    try:
        return int(token), float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not ID=BIAS, such as 42=-5") from None


def sampling_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given, as Options.of takes them; the others keep their defaults."""
    given: dict[str, Any] = {}
    for name, _, _ in FLAGS.values():
        value = getattr(args, name)
        if value is not None:
            given[name] = value
    if args.logit_bias:
        given["logit_bias"] = dict(args.logit_bias)
    if args.seed is not None:
        given["seed"] = args.seed
    return given
