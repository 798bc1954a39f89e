"""`minigen tokenizer`: a tokenizer of one's own."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..parser import Parser
from .train import Reading


def add_arguments(parser: Parser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    text = "make a tokenizer from texts"
    train = actions.add_parser("train", help=text, description=text)
    text = "a text, a .jsonl file of rows with text or messages, a folder, a glob"
    train.also(train.add_argument("files", nargs="+", metavar="FILE", help=text), "-f", "--file")
    train.add_argument("--out", required=True, metavar="DIR", help="where to save it: a new folder")
    train.add_argument("--vocab-size", type=int, metavar="N", help="how many tokens bpe makes, special ones and all")
    train.add_argument(
        "--kind",
        choices=("bpe", "char", "bytes"),
        default="bpe",
        help="byte-level BPE, a token a character, or a token a byte (default: bpe)",
    )
    train.add_argument(
        "--special",
        nargs="+",
        action="extend",
        default=[],
        metavar="TOKEN",
        help="control tokens beside <|endoftext|>, such as <|user|>; where a text has them they are not learned from",
    )
    train.add_argument(
        "--separator", metavar="TEXT", help="what stands between documents (default: a line that is <|endoftext|>)"
    )


def run(args: argparse.Namespace) -> int:
    from minigen.training.data.learning import MERGING
    from minigen.training.data.vocabulary import train_tokenizer

    out = Path(args.out)
    with Reading() as reading:
        made = train_tokenizer(
            args.files,
            out,
            args.vocab_size,
            kind=args.kind,
            special=args.special,
            separator=args.separator,
            progress=lambda done, total: reading("reading", done, total),
            merging=lambda: reading(MERGING, 0, 0),
        )
    documents = f"{made.documents:,} document" + "s" * (made.documents != 1)
    print(f"{out}: {made.tokenizer.vocab_size:,} tokens, from {documents} ({made.bytes / 1e6:.3g} MB)")
    return 0
