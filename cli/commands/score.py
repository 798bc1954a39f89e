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
from ..display.texts import display_name, read_text
from ..model_arguments import add_model_arguments, load_model
from ..parser import Parser

if TYPE_CHECKING:
    from minigen.evaluation.perplexity import TextScore
    from minigen.model import Model

HEAD = ("file", "tokens", "bytes", "nats/token", "perplexity", "bits/byte")


def add_arguments(parser: Parser) -> None:
    text = "a UTF-8 text file, or - for standard input"
    parser.also(parser.add_argument("files", nargs="+", metavar="FILE", help=text), "-f", "--file")
    add_model_arguments(parser, positional=False)
    group = parser.add_argument_group("scoring")
    group.add_argument(
        "--stride",
        type=int,
        metavar="S",
        help="advance the window by S tokens and score only its last S: more context per token, "
        "more work (default: windows that do not overlap)",
    )
    group.add_argument(
        "--window",
        type=int,
        metavar="N",
        help="size of the window in tokens (default: the model's context)",
    )
    group.add_argument(
        "--split",
        metavar="TEXT",
        help="split the text at TEXT into documents, and score each one separately",
    )
    group = parser.add_argument_group("output")
    group.add_argument(
        "--tokens",
        "--logprobs",
        dest="tokens",
        action="store_true",
        help="also print the log-probability of each token",
    )
    group.add_argument("--json", action="store_true", help="print one JSON object per file")


def run(args: argparse.Namespace) -> int:
    texts = read_texts(args.files)  # before anything is loaded
    model = load_model(args)
    from minigen.evaluation.perplexity import score_text

    rows = []
    for name, text in texts:
        with Bar(display_name(name), "tokens") as bar:
            score = score_text(
                model,
                text,
                stride=args.stride,
                window=args.window,
                split=args.split,
                progress=bar.reach,
            )
        if args.json:
            result = as_json(model, name, score, args.tokens)
            print(json.dumps(result, ensure_ascii=False), flush=True)
            continue
        if args.tokens:
            for token, logprob in zip(score.ids, score.logprobs, strict=True):
                print(f"{logprob:9.4f}  {piece(model, token)!r}")
            print()
        rows.append(table_row(name, score))
    if rows:
        print(render(HEAD, rows, *screen(), left=("file",)), end="")
    return 0


def read_texts(names: list[str]) -> list[tuple[str, str]]:
    """Each file's name and text. Raises MinigenError for a file that cannot be read or is empty."""
    texts = [(name, read_text(name)) for name in names]
    for name, text in texts:
        if not text:
            raise UsageError(f"{display_name(name)} is empty: there is nothing to score")
    return texts


def table_row(name: str, score: TextScore) -> list[str]:
    return [
        display_name(name),
        f"{score.tokens:,}",
        f"{score.bytes:,}",
        f"{score.nats_per_token:.4f}",
        f"{score.perplexity:.4f}",
        f"{score.bits_per_byte:.4f}",
    ]


def as_json(model: Model, name: str, score: TextScore, tokens: bool) -> dict[str, Any]:
    """A file's scores. Numbers that JSON does not have (an infinite perplexity) become null."""

    def finite(x: float) -> float | None:
        return x if math.isfinite(x) else None

    result: dict[str, Any] = {
        "file": name,
        "model": str(model.folder),
        "bits_per_byte": finite(score.bits_per_byte),
        "perplexity": finite(score.perplexity),
        "nats_per_token": finite(score.nats_per_token),
        "tokens": score.tokens,
        "bytes": score.bytes,
    }
    if tokens:
        logprobs = []
        for token, logprob in zip(score.ids, score.logprobs, strict=True):
            value = finite(float(logprob))
            logprobs.append({"id": token, "token": piece(model, token), "logprob": value})
        result["logprobs"] = logprobs
    return result
