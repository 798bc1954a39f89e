"""The arguments that every command with a model shares."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from minigen.backends.base import BITS, DTYPES, QUANTS

from .parser import Parser

if TYPE_CHECKING:
    from minigen.model import Model

THREADS = "threads of the CPU to compute with (torch; default: one on each core)"


def add_model_arguments(parser: Parser, *, positional: bool = True) -> None:
    """The model, as the first word or, where that is something else, as -m; and where it runs."""
    text = "a folder, or a hub id org/name[@revision] (default: the model that ships)"
    if positional:
        parser.also(parser.add_argument("model", nargs="?", metavar="MODEL", help=text), "-m", "--model")
    else:
        parser.add_argument("-m", "--model", metavar="MODEL", help=text)
    group = parser.add_argument_group("where it runs")
    group.add_argument(
        "--backend",
        default="auto",
        choices=("auto", "torch", "mlx"),
        help="auto: mlx on Apple silicon, else torch, else whichever is installed",
    )
    group.add_argument("--device", help="cuda, cuda:1, cpu (torch); gpu, cpu (mlx)")
    group.add_argument("--dtype", choices=DTYPES, help="default: float32 on a CPU, the checkpoint's own on a GPU")
    group.add_argument(
        "--quant", choices=QUANTS, help="hold the weights in 8 or 4 bits; mixed: 4, the embedding and the head in 8"
    )
    group.add_argument(
        "--kv-bits", type=int, choices=BITS, help="hold keys and values, which grow with the text, in 8 or 4 bits"
    )
    group.add_argument("--threads", type=int, metavar="N", help=THREADS)
    group.add_argument("--offline", action="store_true", help="never open a socket")


def add_speculation_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("speculation: tokens are guessed, and checked several in one pass")
    group.add_argument("--speculate", choices=("lookup",), help="guess by what the text has said before")
    group.add_argument("--draft", metavar="MODEL", help="guess by a smaller model with the same tokenizer")
    group.add_argument("--draft-tokens", type=int, metavar="N", help="guesses at most in one pass (default 10)")


def load_model(args: argparse.Namespace) -> Model:
    from minigen.model import load

    return load(args.model, quant=args.quant, kv_bits=args.kv_bits, **where_it_runs(args))


def load_draft(args: argparse.Namespace) -> Model | None:
    """The model that guesses, where one is named; it runs where the other does."""
    from minigen.model import load

    return load(args.draft, **where_it_runs(args)) if args.draft else None


def where_it_runs(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `minigen.load` that a model and its draft share."""
    names = ("backend", "device", "dtype", "threads", "offline")
    return {name: getattr(args, name) for name in names}
