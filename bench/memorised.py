"""How much of what a model writes stands in its training text: the share of word n-grams, sample by sample.

    python bench/memorised.py TRAIN.txt... [-m MODEL] [--samples 40] [--words 8]

Beside the model's samples stand texts that were never trained on (`--control`), as stories share stock phrases.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from statistics import mean

import minigen


def grams(text: str, n: int) -> list[tuple[str, ...]]:
    words = re.findall(r"[\w']+", text.lower())
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def longest(text: str, known: dict[int, set[tuple[str, ...]]]) -> int:
    """The longest run of words that the training text has, among the lengths that are counted."""
    return max((n for n, seen in known.items() if any(gram in seen for gram in grams(text, n))), default=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", nargs="+", type=Path)
    parser.add_argument("-m", "--model")
    parser.add_argument("--control", type=Path, help="texts with <|endoftext|> between, never trained on")
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--words", type=int, default=8)
    args = parser.parse_args()
    model = minigen.load(args.model)
    prompts = ["Once upon a time"] * args.samples
    sets = {"model": [model.generate(p, max_tokens=200, seed=i) for i, p in enumerate(prompts)]}
    if args.control:
        texts = [text.strip() for text in args.control.read_text().split("<|endoftext|>")]
        sets["control"] = [text for text in texts if text][: args.samples]
    train = "\n".join(path.read_text() for path in args.train)
    known = {n: set(grams(train, n)) for n in sorted({args.words, 12, 16, 24, 32})}
    result = {}
    for name, texts in sets.items():
        shares = [mean(gram in known[args.words] for gram in grams(text, args.words) or [()]) for text in texts]
        runs = sorted(longest(text, known) for text in texts)
        result[name] = {"share": mean(shares), "longest": {n: sum(run >= n for run in runs) for n in known}}
        counts = ", ".join(f"{n} words: {count}" for n, count in result[name]["longest"].items())
        print(f"{name}: {mean(shares):.1%} of runs of {args.words} words are in the training text; texts with {counts}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
