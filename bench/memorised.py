"""How much of what a model writes is copied from its training text: the share of word n-grams.

    python bench/memorised.py TRAIN.txt... [-m MODEL] [--samples 40] [--words 8]

For comparison, `--control` names texts that were never trained on, because stories share stock
phrases.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import minigen

PROMPT = "Once upon a time"
LENGTHS = (12, 16, 24, 32)  # of n-grams whose copies are counted, besides --words
Gram = tuple[str, ...]
Known = dict[int, set[Gram]]  # length -> the n-grams of the training text


def grams(text: str, length: int) -> list[Gram]:
    """All runs of `length` words."""
    words = re.findall(r"[\w']+", text.lower())
    return [tuple(words[i : i + length]) for i in range(len(words) - length + 1)]


def share(text: str, length: int, known: Known) -> float:
    """The share of a text's n-grams that are in the training text."""
    own = grams(text, length)
    if not own:
        return 0.0
    return sum(gram in known[length] for gram in own) / len(own)


def longest(text: str, known: Known) -> int:
    """The longest run of words, of the lengths that are counted, that is in the training text."""
    best = 0
    for length, seen in known.items():
        if not seen.isdisjoint(grams(text, length)):
            best = max(best, length)
    return best


def samples_of(model: minigen.Model, count: int) -> list[str]:
    """Texts by the model, with a seed for each."""
    return [model.generate(PROMPT, max_tokens=200, seed=seed) for seed in range(count)]


def controls_of(path: Path, count: int) -> list[str]:
    """The first texts of a file that are not blank."""
    texts = []
    for text in path.read_text().split("<|endoftext|>"):
        if text.strip():
            texts.append(text.strip())
    return texts[:count]


def measure(texts: Sequence[str], words: int, known: Known) -> dict[str, Any]:
    """The mean share, and how many texts have a copied run of each length or more."""
    runs = [longest(text, known) for text in texts]
    counts = {}
    for length in known:
        counts[length] = sum(run >= length for run in runs)
    return {"share": mean(share(text, words, known) for text in texts), "longest": counts}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train", nargs="+", type=Path, help="the training text")
    parser.add_argument("-m", "--model", help="default: the model that ships")
    parser.add_argument(
        "--control",
        type=Path,
        help="texts that were never trained on, with <|endoftext|> between them",
    )
    parser.add_argument("--samples", type=int, default=40, help="number of texts (default: 40)")
    parser.add_argument("--words", type=int, default=8, help="length of the n-grams (default: 8)")
    args = parser.parse_args()
    texts_of = {"model": samples_of(minigen.load(args.model), args.samples)}
    if args.control:
        texts_of["control"] = controls_of(args.control, args.samples)
    train = "\n".join(path.read_text() for path in args.train)
    known = {}
    for length in sorted({args.words, *LENGTHS}):
        known[length] = set(grams(train, length))
    result = {}
    for name, texts in texts_of.items():
        result[name] = measure(texts, args.words, known)
        counts = [f"{length} words: {n}" for length, n in result[name]["longest"].items()]
        print(
            f"{name}: {result[name]['share']:.1%} of runs of {args.words} words are in the "
            f"training text; texts with {', '.join(counts)}"
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
