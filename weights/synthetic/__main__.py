"""`python -m minigen.weights.synthetic`: write training text and prompt files.

Writes stories.txt, chats.jsonl, fewshot.txt and eval/*.prompt.toml.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from minigen.errors import MinigenError
from minigen.files import replacing
from minigen.weights.synthetic.chats import chat
from minigen.weights.synthetic.fewshot import fewshot, write_evaluation
from minigen.weights.synthetic.stories import story

KINDS = ("stories", "chats", "fewshot")
SEPARATOR = "\n<|endoftext|>\n"


def chat_line(seed: int, number: int) -> str:
    """Chat `number` of `seed` as a line of JSON."""
    return json.dumps(chat(seed, number))


def unique(make: Callable[[int], str], count: int) -> Iterator[str]:
    """`count` documents, by number from 0 on; one that was already made is skipped."""
    seen: set[bytes] = set()
    number = 0
    while len(seen) < count:
        text = make(number)
        number += 1
        digest = hashlib.blake2b(text.encode(), digest_size=12).digest()
        if digest not in seen:
            seen.add(digest)
            yield text


def write(path: Path, documents: Iterator[str], end: str) -> None:
    """Write the documents, each with `end` after it, and report their number and speed."""
    start = time.perf_counter()
    characters = 0
    count = 0
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        for text in documents:
            characters += file.write(text + end)
            count += 1
    seconds = max(time.perf_counter() - start, 1e-9)
    megabytes = characters / 1e6
    report = f"{path}: {count:,} documents, {megabytes:.2f} MB, {megabytes / seconds:.1f} MB/s"
    print(report, file=sys.stderr)


def write_all(options: argparse.Namespace) -> None:
    """Write every file that the command writes."""
    seed, out = options.seed, options.out
    out.mkdir(parents=True, exist_ok=True)
    write(out / "stories.txt", unique(partial(story, seed), options.stories), SEPARATOR)
    write(out / "chats.jsonl", unique(partial(chat_line, seed), options.chats), "\n")
    write(out / "fewshot.txt", unique(partial(fewshot, seed), options.fewshot), SEPARATOR)
    write_evaluation(seed, out / "eval")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m minigen.weights.synthetic", description=__doc__
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="a different seed gives different texts (default: 1)"
    )
    for kind in KINDS:
        parser.add_argument(
            f"--{kind}",
            type=int,
            default=20000,
            metavar="N",
            help="number of documents (default: 20000)",
        )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    return parser


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser()
    options = parser.parse_args(arguments)
    for kind in KINDS:
        count = getattr(options, kind)
        if count < 0:
            parser.error(f"--{kind} {count}: must be 0 or more")
    try:
        write_all(options)
    except OSError as error:
        reason = error.strerror or error
        print(
            f"minigen: {options.out}: {reason}; give --out a folder that can be written to",
            file=sys.stderr,
        )
        return 1
    except MinigenError as error:
        print(f"minigen: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
