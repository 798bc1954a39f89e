"""`minigen tokenizer`: train a tokenizer on text files."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from ..display.train_lines import plural
from ..parser import Parser
from .train import Reading


def add_arguments(parser: Parser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    text = "train a tokenizer on text files"
    train = actions.add_parser("train", help=text, description=text)
    text = "a text file, a .jsonl file whose rows have text or messages, a folder, or a glob"
    train.also(train.add_argument("files", nargs="+", metavar="FILE", help=text), "-f", "--file")
    train.add_argument(
        "--out", required=True, metavar="DIR", help="the folder to write; it must not exist yet"
    )
    train.add_argument(
        "--vocab-size",
        type=int,
        metavar="N",
        help="number of tokens of a bpe tokenizer, including the special ones",
    )
    train.add_argument(
        "--kind",
        choices=("bpe", "char", "bytes"),
        default="bpe",
        help="bpe: byte-level BPE; char: one token per character; bytes: one token per byte "
        "(default: bpe)",
    )
    train.add_argument(
        "--special",
        nargs="+",
        action="extend",
        default=[],
        metavar="TOKEN",
        help="special tokens in addition to <|endoftext|>, such as <|user|>; they are not learned "
        "from where they occur in a text",
    )
    train.add_argument(
        "--separator",
        metavar="TEXT",
        help="the text between two documents (default: a line with only <|endoftext|>)",
    )


def run(args: argparse.Namespace) -> int:
    from minigen.training.data.learning import MERGING
    from minigen.training.data.vocabulary import train_tokenizer

    out = Path(args.out)
    with Reading() as reading:
        trained = train_tokenizer(
            args.files,
            out,
            args.vocab_size,
            kind=args.kind,
            special=args.special,
            separator=args.separator,
            progress=partial(reading, "reading"),
            merging=partial(reading, MERGING, 0, 0),
        )
    documents = plural(trained.documents, "document")
    megabytes = f"{trained.bytes / 1e6:.3g} MB"
    print(f"{out}: {trained.tokenizer.vocab_size:,} tokens, from {documents} ({megabytes})")
    return 0
