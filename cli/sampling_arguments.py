"""The flags that say how a token is chosen, for every command that writes text."""

from __future__ import annotations

import argparse
from typing import Any

# flag -> (setting, type, help); a flag that is not given leaves the library's default
FLAGS: dict[str, tuple[str, Any, str]] = {
    "--temp": ("temperature", float, "0 is greedy (default 0.8)"),
    "--top-k": ("top_k", int, "draw from the K best tokens"),
    "--top-p": ("top_p", float, "draw from the best tokens that hold this much probability (default 0.95)"),
    "--min-p": ("min_p", float, "drop tokens below this share of the best one's probability"),
    "--typical-p": ("typical_p", float, "locally typical sampling"),
    "--epsilon-cutoff": ("epsilon_cutoff", float, "drop tokens below this probability"),
    "--eta-cutoff": ("eta_cutoff", float, "the same, lowered where the entropy is high"),
    "--repetition-penalty": (
        "repetition_penalty",
        float,
        "above 1: make tokens of the text so far less likely",
    ),
    "--presence-penalty": ("presence_penalty", float, "subtracted from the logit of each generated token"),
    "--frequency-penalty": ("frequency_penalty", float, "the same, once for each time it was generated"),
    "--no-repeat-ngram": ("no_repeat_ngram_size", int, "never repeat an n-gram of this many tokens"),
}


SEED = "the same seed gives the same text again; in float32 also on the other backend, and alone or in a batch"


def add_sampling_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Adds them in a group of their own, and returns the group."""
    group = parser.add_argument_group("how to choose tokens")
    group.add_argument("-s", "--seed", type=int, metavar="N", help=SEED)
    for flag, (setting, kind, text) in FLAGS.items():
        group.add_argument(flag, dest=setting, type=kind, metavar="N" if kind is int else "X", help=text)
    group.add_argument(
        "--logit-bias",
        action="append",
        default=[],
        type=bias,
        metavar="ID=BIAS",
        help="add to a token's logit; may be repeated",
    )
    return group


def bias(text: str) -> tuple[int, float]:
    token, _, value = text.partition("=")
    try:
        return int(token), float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not ID=BIAS, as in 42=-5") from None


def sampling_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given, as Options.of takes them; the others have the library's defaults."""
    given = {name: getattr(args, name) for name, _, _ in FLAGS.values() if getattr(args, name) is not None}
    if args.logit_bias:
        given["logit_bias"] = dict(args.logit_bias)
    if args.seed is not None:
        given["seed"] = args.seed
    return given
