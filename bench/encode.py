"""What tiktoken saves against the `tokenizers` library, for one tokenizer.json: encoding a text, and opening the file.

    python bench/encode.py FOLDER TEXT.txt [--runs 7]

FOLDER has a tokenizer.json that minigen runs by tiktoken. The text is encoded whole and line by line, as training and
a chat do, by both libraries in turn; figures are medians. Opening by tiktoken includes the proof that its ids are the
same.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from unittest import mock

from minigen.tokenizer import Tokenizer, load_tokenizer, tokenizer_json

LIBRARIES = ("tiktoken", "tokenizers")


def open_by(library: str, folder: Path) -> Tokenizer:
    """The tokenizer of a folder, run by one of the libraries. Raises SystemExit where tiktoken cannot run it."""
    proof = tokenizer_json.mergeable_ranks if library == "tiktoken" else lambda *_: None
    with mock.patch.object(tokenizer_json, "mergeable_ranks", proof):
        tokenizer = load_tokenizer(folder)
    if tokenizer is None or tokenizer.kind != library:
        raise SystemExit(f"{folder} is not run by {library}")
    return tokenizer


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    text = args.text.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    opened = {library: open_by(library, args.folder) for library in LIBRARIES}
    assert opened["tiktoken"].encode(text) == opened["tokenizers"].encode(text)

    def tasks(library: str) -> dict[str, Callable[[], object]]:
        tokenizer = opened[library]
        return {
            "the whole text": lambda: tokenizer.encode(text),
            "line by line": lambda: [tokenizer.encode(line) for line in lines],
            "opening": lambda: open_by(library, args.folder),
        }

    print(
        f"{args.text.name}: {len(text.encode()) / 1e6:.2f} MB, {len(lines):,} lines; {args.folder.name}"
    )
    for task in tasks("tiktoken"):
        taken: dict[str, list[float]] = {library: [] for library in LIBRARIES}
        for _ in range(args.runs):
            for library in LIBRARIES:
                taken[library].append(seconds(tasks(library)[task]))
        ours, theirs = (median(taken[library]) for library in LIBRARIES)
        print(
            f"{task:15} tiktoken {ours:.3f} s, tokenizers {theirs:.3f} s: {theirs / ours:.2f} times"
        )


if __name__ == "__main__":
    main()
