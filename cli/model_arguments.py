"""The arguments that every command with a model shares."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from minigen.backends.base import BITS, DTYPES, QUANTS

from .parser import Parser

if TYPE_CHECKING:
    from minigen.model import Model

DEVICE = "cuda, cuda:1 or cpu with torch; gpu or cpu with mlx"
MODEL = "a folder or a hub id org/name[@revision] (default: the model that ships)"
OFFLINE = "do not use the network"
THREADS = "number of CPU threads (torch only; default: one per core)"


def add_model_arguments(parser: Parser, *, positional: bool = True) -> None:
    """Add the model and where it runs.

    The model is the first word or, with `positional` false, only -m.
    """
    if positional:
        model = parser.add_argument("model", nargs="?", metavar="MODEL", help=MODEL)
        parser.also(model, "-m", "--model")
    else:
        parser.add_argument("-m", "--model", metavar="MODEL", help=MODEL)
    group = parser.add_argument_group("where and how it runs")
    group.add_argument(
        "--backend",
        default="auto",
        choices=("auto", "torch", "mlx"),
        help="auto: mlx on Apple silicon, else torch, else whichever is installed (default: auto)",
    )
    group.add_argument("--device", help=DEVICE)
    group.add_argument(
        "--dtype",
        choices=DTYPES,
        help="dtype to compute in (default: float32 on a CPU, the checkpoint's dtype on a GPU)",
    )
    group.add_argument(
        "--quant",
        choices=QUANTS,
        help="quantize the weights to 8 or 4 bits; mixed: 4 bits, embedding and head 8 bits",
    )
    group.add_argument(
        "--kv-bits",
        type=int,
        choices=BITS,
        help="quantize the cache of keys and values, which grows with the text, to 8 or 4 bits",
    )
    group.add_argument("--threads", type=int, metavar="N", help=THREADS)
    group.add_argument("--offline", action="store_true", help=OFFLINE)


def add_speculation_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of speculative decoding."""
    group = parser.add_argument_group(
        "speculative decoding: draft several tokens, and check them in one pass"
    )
    group.add_argument(
        "--speculate",
        choices=("lookup",),
        help="draft tokens by looking up what followed the same words earlier in the text",
    )
    group.add_argument(
        "--draft",
        metavar="MODEL",
        help="draft tokens with a smaller model that has the same tokenizer",
    )
    group.add_argument(
        "--draft-tokens",
        type=int,
        metavar="N",
        help="maximum number of drafted tokens per pass (default: 10)",
    )


def load_model(args: argparse.Namespace) -> Model:
    """The model that the flags name, loaded as they say."""
    from minigen.model import load

    return load(args.model, quant=args.quant, kv_bits=args.kv_bits, **where_it_runs(args))


def load_draft(args: argparse.Namespace) -> Model | None:
    """The draft model, if one is named; it runs where the other model does."""
    from minigen.model import load

    if not args.draft:
        return None
    return load(args.draft, **where_it_runs(args))


def where_it_runs(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `minigen.load` that a model and its draft share."""
    names = ("backend", "device", "dtype", "threads", "offline")
    return {name: getattr(args, name) for name in names}
