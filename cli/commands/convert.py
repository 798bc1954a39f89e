"""`minigen convert`: a model in another dtype, quantized, or with an adapter merged in."""

from __future__ import annotations

import argparse

from minigen.backends.base import DTYPES, QUANTS
from minigen.backends.quantized import GROUPS
from minigen.checkpoints.hub import resolve
from minigen.errors import UsageError

from ..model_arguments import OFFLINE
from ..parser import Parser


def add_arguments(parser: Parser) -> None:
    text = "a model or an adapter: a folder or a hub id org/name[@revision]"
    parser.also(parser.add_argument("model", metavar="MODEL", help=text), "-m", "--model")
    text = "the folder to write; it must not exist yet"
    parser.also(parser.add_argument("out", metavar="OUT", help=text), "-o", "--out")
    parser.add_argument(
        "--dtype", choices=DTYPES, help="dtype of the weights (default: the one they are stored in)"
    )
    parser.add_argument(
        "--quant",
        choices=QUANTS,
        help="quantize the weights to 8 or 4 bits, in mlx-lm's layout; mixed: 4 bits, embedding "
        "and head 8 bits (default: do not quantize, and restore quantized weights)",
    )
    parser.add_argument(
        "--quant-group",
        type=int,
        choices=GROUPS,
        help="number of weights that share a scale and a bias (default: 64)",
    )
    parser.add_argument(
        "--lora",
        metavar="ADAPTER",
        help="merge this LoRA adapter of MODEL into the weights: a folder or a hub id",
    )
    parser.add_argument("--offline", action="store_true", help=OFFLINE)


def run(args: argparse.Namespace) -> int:
    from minigen.checkpoints.convert import convert
    from minigen.checkpoints.quantization import GROUP
    from minigen.reading import at_home

    if args.quant_group and not args.quant:
        raise UsageError("--quant-group only has an effect with --quant: add --quant")
    lora = None
    if args.lora is not None:
        lora = resolve(args.lora, offline=args.offline)
    converted = convert(
        args.model,
        at_home(args.out),
        dtype=args.dtype,
        quant=args.quant,
        group=args.quant_group or GROUP,
        lora=lora,
        offline=args.offline,
    )
    weights = converted.dtype
    if converted.quant:
        weights += f" and {converted.quant}"
    print(
        f"{converted.folder}: {converted.model_type}, {converted.parameters:,} parameters "
        f"in {weights}, {size(converted.bytes)}"
    )
    return 0


def size(count: int) -> str:
    """A number of bytes."""
    if count < 1e9:
        return f"{count / 1e6:,.3g} MB"
    return f"{count / 1e9:,.3g} GB"
