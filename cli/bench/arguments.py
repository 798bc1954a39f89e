"""The flags of `minigen bench`."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from minigen.backends.base import BITS, DTYPES, QUANTS

from ..model_arguments import DEVICE, OFFLINE, THREADS
from ..parser import Parser
from .report import FORMATS

BACKENDS = ("auto", "torch", "mlx")


def int_list(text: str) -> list[int]:
    """A comma-separated list of whole numbers."""
    words = text.split(",")
    for word in words:
        if not word.strip().isdecimal():
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a list of whole numbers such as 128,512"
            )
    return [int(word) for word in words]


def at_least_one(text: str) -> list[int]:
    """A comma-separated list of whole numbers >= 1."""
    numbers = int_list(text)
    if 0 in numbers:
        raise argparse.ArgumentTypeError(f"{text!r}: must be 1 or more")
    return numbers


def names(*known: str) -> Callable[[str], list[str]]:
    """A comma-separated list of these words."""

    def read(text: str) -> list[str]:
        words = [word.strip() for word in text.split(",")]
        for word in words:
            if word not in known:
                choices = ", ".join(known)
                raise argparse.ArgumentTypeError(f"unknown {word!r}: choose from {choices}")
        return words

    return read


def add_models(parser: Parser) -> None:
    from minigen.benchmark.shapes import SHAPES

    text = "folders or hub ids (default: the model that ships, or only the shapes)"
    models = parser.add_argument("models", nargs="*", metavar="MODEL", help=text)
    parser.also(models, "-m", "--model")
    parser.add_argument(
        "--shape",
        type=names(*SHAPES),
        action="extend",
        default=[],
        metavar="NAME,...",
        help=f"models with random weights and the shape of a known model: {', '.join(SHAPES)}",
    )


def add_tests(parser: Parser) -> None:
    group = parser.add_argument_group("what to measure (every combination of the lists)")
    group.add_argument(
        "-p",
        "--n-prompt",
        type=int_list,
        metavar="N,...",
        help="length of the prompt in tokens; 0 leaves the test out (default: 512)",
    )
    group.add_argument(
        "-n",
        "--n-gen",
        type=int_list,
        metavar="N,...",
        help="number of tokens to decode; 0 leaves the test out (default: 128)",
    )
    group.add_argument(
        "-d",
        "--n-depth",
        type=int_list,
        metavar="N,...",
        help="tokens of context before the test (default: 0)",
    )
    group.add_argument(
        "-b",
        "--batch-size",
        type=at_least_one,
        metavar="N,...",
        help="rows per batch (default: 1)",
    )
    group.add_argument(
        "-r",
        "--repetitions",
        type=at_least_one,
        default=[5],
        metavar="N",
        help="runs of each test (default: 5)",
    )
    group.add_argument(
        "--cold",
        action="store_true",
        help="time a fresh `generate` process until its first token, and nothing else",
    )


def add_placement(parser: Parser) -> None:
    group = parser.add_argument_group("where and how it runs")
    group.add_argument(
        "--backend",
        type=names(*BACKENDS),
        default=["auto"],
        metavar="NAME,...",
        help="auto, torch, mlx (default: auto)",
    )
    group.add_argument("--device", help=DEVICE)
    group.add_argument(
        "--dtype",
        type=names(*DTYPES),
        default=[None],
        metavar="NAME,...",
        help=f"{', '.join(DTYPES)} (default: float32 on a CPU, the checkpoint's dtype on a GPU)",
    )
    group.add_argument(
        "--quant",
        type=names("none", *QUANTS),
        default=["none"],
        metavar="NAME,...",
        help="quantize the weights to 8 or 4 bits, mixed (4 bits, embedding and head 8 bits), or "
        "none: as they are stored (default: none)",
    )
    group.add_argument(
        "--kv-bits",
        type=names("none", *map(str, BITS)),
        default=["none"],
        metavar="NAME,...",
        help="quantize the cache of keys and values to 8 or 4 bits, or none (default: none)",
    )
    group.add_argument(
        "--threads", type=at_least_one, default=[None], metavar="N,...", help=THREADS
    )
    group.add_argument("--offline", action="store_true", help=OFFLINE)


def add_output(parser: Parser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o",
        "--output",
        choices=FORMATS,
        default="table",
        help="format of the results on stdout (default: table)",
    )
    group.add_argument(
        "--plot", metavar="FILE.png", help="also plot the tokens per second and their limits"
    )
    group.add_argument(
        "--compare",
        nargs=2,
        metavar=("A.json", "B.json"),
        help="compare two -o json results (no measurement): ratio and whether it is significant",
    )
