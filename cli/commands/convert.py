"""`minigen convert`: a model as another folder, in another dtype, quantized, or with an adapter merged in."""

from __future__ import annotations

import argparse

from minigen.backends.base import DTYPES, QUANTS
from minigen.backends.quantized import GROUPS
from minigen.checkpoints.hub import resolve
from minigen.errors import UsageError

from ..parser import Parser


def add_arguments(parser: Parser) -> None:
    text = "a model or an adapter: a folder, or a hub id org/name[@revision]"
    parser.also(parser.add_argument("model", metavar="MODEL", help=text), "-m", "--model")
    parser.also(parser.add_argument("out", metavar="OUT", help="the folder to write: a new one"), "-o", "--out")
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights (default: the one that MODEL has them in)")
    parser.add_argument(
        "--quant", choices=QUANTS,
        help="bits a weight, in mlx-lm's layout; mixed: 4, the embedding and the head 8 (default: a plain model)",
    )  # fmt: skip
    parser.add_argument(
        "--quant-group", type=int, choices=GROUPS, help="weights that share a scale and a bias (default: 64)"
    )
    parser.add_argument("--lora", metavar="ADAPTER", help="a LoRA adapter of MODEL to merge in: a folder or a hub id")
    parser.add_argument("--offline", action="store_true", help="never open a socket")


def run(args: argparse.Namespace) -> int:
    from minigen.checkpoints.convert import convert
    from minigen.checkpoints.quantization import GROUP
    from minigen.reading import at_home

    if args.quant_group and not args.quant:
        raise UsageError("--quant-group says how --quant does it: name both")
    lora = resolve(args.lora, offline=args.offline) if args.lora is not None else None
    settings = {"dtype": args.dtype, "quant": args.quant, "group": args.quant_group or GROUP}
    made = convert(args.model, at_home(args.out), **settings, lora=lora, offline=args.offline)
    size = f"{made.bytes / 1e6:,.3g} MB" if made.bytes < 1e9 else f"{made.bytes / 1e9:,.3g} GB"
    quant = made.quant and f" and {made.quant}"
    print(f"{made.folder}: {made.model_type}, {made.parameters:,} parameters in {made.dtype}{quant}, {size}")
    return 0
