"""`minigen convert`: a model as another folder, in another dtype or with an adapter merged in."""

from __future__ import annotations

import argparse
from pathlib import Path

from minigen.backends.base import DTYPES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a folder, a hub id org/name[@revision], or an adapter's folder")
    parser.add_argument("out", metavar="OUT", help="the folder to write: a new one")
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights (default: the one that MODEL has them in)")
    parser.add_argument("--lora", metavar="ADAPTER", help="a folder with a LoRA adapter of MODEL, to merge in")
    parser.add_argument("--offline", action="store_true", help="never open a socket")


def run(args: argparse.Namespace) -> int:
    from minigen.convert import convert

    lora = Path(args.lora).expanduser() if args.lora is not None else None
    made = convert(args.model, Path(args.out).expanduser(), dtype=args.dtype, lora=lora, offline=args.offline)
    size = f"{made.bytes / 1e6:,.3g} MB" if made.bytes < 1e9 else f"{made.bytes / 1e9:,.3g} GB"
    print(f"{made.folder}: {made.model_type}, {made.parameters:,} parameters in {made.dtype}, {size}")
    return 0
