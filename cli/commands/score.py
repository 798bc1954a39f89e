"""`minigen score`: how well a model predicts text files."""

from __future__ import annotations

import argparse
import json
import math
from typing import TYPE_CHECKING, Any

from minigen.errors import UsageError

from ..display.progress import Bar
from ..display.report import piece
from ..display.tables import render, screen
from ..display.texts import read_text, shown
from ..model_arguments import add_model_arguments, load_model
from ..parser import Parser

if TYPE_CHECKING:
    from minigen.evaluation.perplexity import TextScore
    from minigen.model import Model


def add_arguments(parser: Parser) -> None:
    files = parser.add_argument("files", nargs="+", metavar="FILE", help="a text in UTF-8; - is standard input")
    parser.also(files, "-f", "--file")
    add_model_arguments(parser, positional=False)
    group = parser.add_argument_group("how to read")
    group.add_argument(
        "--stride",
        type=int,
        metavar="S",
        help="move the window by S tokens and score the S last of each: more context for each token, more work "
        "(default: windows of the model's context, each token scored once)",
    )
    group.add_argument("--window", type=int, metavar="N", help="tokens in a window (default: the model's context)")
    group.add_argument("--split", metavar="TEXT", help="score the documents between occurrences of TEXT one by one")
    group = parser.add_argument_group("what to show")
    group.add_argument(
        "--tokens", "--logprobs", dest="tokens", action="store_true", help="each token's log-probability"
    )
    group.add_argument("--json", action="store_true", help="one JSON object a file, a line each")


def run(args: argparse.Namespace) -> int:
    texts = [read_text(name) for name in args.files]  # what is wrong with a file is said before anything is loaded
    if "" in texts:
        raise UsageError(f"{shown(args.files[texts.index('')])} is empty: there is nothing to score")
    model = load_model(args)
    from minigen.evaluation.perplexity import score_text

    rows = []
    for name, text in zip(args.files, texts, strict=True):
        with Bar(shown(name), "tokens") as bar:
            score = score_text(
                model, text, stride=args.stride, window=args.window, split=args.split, progress=bar.reach
            )
        if args.json:
            print(json.dumps(as_json(model, name, score, args.tokens), ensure_ascii=False), flush=True)
            continue
        if args.tokens:
            for token, logprob in zip(score.ids, score.logprobs, strict=True):
                print(f"{logprob:9.4f}  {piece(model, token)!r}")
            print()
        rows.append(numbers(name, score))
    if rows:
        head = ["file", "tokens", "bytes", "nats/token", "perplexity", "bits/byte"]
        print(render(head, rows, *screen(), left=("file",)), end="")
    return 0


def numbers(name: str, score: TextScore) -> list[str]:
    return [
        shown(name),
        f"{score.tokens:,}",
        f"{score.bytes:,}",
        f"{score.nats_per_token:.4f}",
        f"{score.perplexity:.4f}",
        f"{score.bits_per_byte:.4f}",
    ]


def as_json(model: Model, name: str, score: TextScore, tokens: bool) -> dict[str, Any]:
    """Numbers that JSON does not have (an infinite perplexity) become null."""

    def finite(x: float) -> float | None:
        return x if math.isfinite(x) else None

    found: dict[str, Any] = {
        "file": name,
        "model": str(model.folder),
        "bits_per_byte": finite(score.bits_per_byte),
        "perplexity": finite(score.perplexity),
        "nats_per_token": finite(score.nats_per_token),
        "tokens": score.tokens,
        "bytes": score.bytes,
    }
    if tokens:
        found["logprobs"] = [
            {"id": token, "token": piece(model, token), "logprob": finite(float(logprob))}
            for token, logprob in zip(score.ids, score.logprobs, strict=True)
        ]
    return found
