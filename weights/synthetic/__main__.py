"""`python -m minigen.weights.synthetic`: write stories.txt, chats.jsonl, fewshot.txt and eval/*.prompt.toml."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from minigen.errors import MinigenError
from minigen.files import replacing
from minigen.weights.synthetic.chats import chat
from minigen.weights.synthetic.fewshot import fewshot, write_evaluation
from minigen.weights.synthetic.stories import story

END = "<|endoftext|>"


def unique(make: Callable[[int], str], count: int) -> Iterator[str]:
    """`count` documents, numbers from 0 on; one that was there before is left out and the next number taken."""
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
    start, size, count = time.perf_counter(), 0, 0
    with replacing(path) as beside, beside.open("w", encoding="utf-8", newline="\n") as file:
        for text in documents:
            size += file.write(text + end)
            count += 1
    seconds = time.perf_counter() - start
    print(
        f"{path}: {count:,} documents, {size / 1e6:.2f} MB, {size / 1e6 / max(seconds, 1e-9):.1f} MB/s", file=sys.stderr
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m minigen.weights.synthetic", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="another seed, other texts (1)")
    for kind in ("stories", "chats", "fewshot"):
        parser.add_argument(f"--{kind}", type=int, default=20000, metavar="N", help="how many documents (20000)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    options = parser.parse_args(arguments)
    for kind in ("stories", "chats", "fewshot"):
        if getattr(options, kind) < 0:
            parser.error(f"--{kind} {getattr(options, kind)}: give a number from 0 on")
    seed, out = options.seed, options.out
    try:
        out.mkdir(parents=True, exist_ok=True)
        write(out / "stories.txt", unique(lambda n: story(seed, n), options.stories), f"\n{END}\n")
        write(out / "chats.jsonl", unique(lambda n: json.dumps(chat(seed, n)), options.chats), "\n")
        write(out / "fewshot.txt", unique(lambda n: fewshot(seed, n), options.fewshot), f"\n{END}\n")
        write_evaluation(seed, out / "eval")
    except OSError as error:
        print(f"minigen: {out}: {error.strerror or error}; give --out a folder that can be written to", file=sys.stderr)
        return 1
    except MinigenError as error:
        print(f"minigen: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
