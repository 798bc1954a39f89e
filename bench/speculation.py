"""Speculative decoding and decoding one token at a time: is the text the same, and how fast is it?

    python bench/speculation.py [-m MODEL] [--draft MODEL] > bench/results/speculation.md

The prompts are few-shot documents, which repeat themselves, and the beginnings of stories, which
repeat little, both from the generator of training text. Each is continued greedily and with seeds.
The two ways alternate, and take turns to be first. The output is Markdown.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import minigen
from minigen.backends.machine import describe
from minigen.generation.options import Options
from minigen.generation.rows import Timing
from minigen.model import Model
from minigen.weights.synthetic.fewshot import fewshot
from minigen.weights.synthetic.stories import story

SEED = 12  # of the generator: not one that the shipped model was trained with
SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "0.8, top-p 0.95": {"temperature": 0.8, "top_p": 0.95},
    "0.9, top-k 40, penalties": {
        "temperature": 0.9,
        "top_k": 40,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.1,
    },
}
HEAD = (
    "text",
    "sampling",
    "the same",
    "drafts accepted",
    "tokens per pass",
    "tokens/s without",
    "tokens/s with",
    "ratio",
)
Side = tuple[Options, Model | None]


def prompts(model: Model, count: int, tokens: int) -> Iterator[tuple[str, str]]:
    """(kind, text), with room for so many new tokens."""
    context, tokenizer = model.architecture.context, model.needed_tokenizer
    most = 300
    if context is not None:
        most = min(most, context - tokens)
    for number in range(count):
        yield "few-shot", tokenizer.decode(tokenizer.encode(fewshot(SEED, number))[:most])
        yield "stories", " ".join(story(SEED, number).split()[:15])


def run(model: Model, text: str, side: Side) -> tuple[list[int], Timing]:
    text_run = model.run([text], *side)
    for _ in text_run:
        pass
    return text_run.rows[0].ids, text_run.timing


@dataclass
class Group:
    """The pairs of runs over one kind of text with one kind of sampling."""

    same: int = 0
    speeds: list[tuple[float, float]] = field(
        default_factory=list
    )  # tokens a second, without guesses and with
    tokens: int = 0  # by decode, as are the next
    drafted: int = 0
    accepted: int = 0

    def add(self, same: bool, without: Timing, guessed: Timing) -> None:
        self.same += same
        self.speeds.append(
            (without.decode_tokens / without.decode_s, guessed.decode_tokens / guessed.decode_s)
        )
        self.tokens += guessed.decode_tokens
        self.drafted += guessed.drafted
        self.accepted += guessed.accepted

    def cells(self) -> list[str]:
        without = median(speed for speed, _ in self.speeds)
        guessed = median(speed for _, speed in self.speeds)
        return [
            f"{self.same} of {len(self.speeds)}",
            f"{self.accepted / max(1, self.drafted):.0%} of {self.drafted:,}",
            f"{self.tokens / (self.tokens - self.accepted):.2f}",
            f"{without:.0f}",
            f"{guessed:.0f}",
            f"**{median(b / a for a, b in self.speeds):.2f}**",
        ]


def compare(
    model: Model, draft: Model | None, args: argparse.Namespace
) -> dict[tuple[str, str], Group]:
    way: dict[str, Any] = {
        "speculate": None if draft else "lookup",
        "draft_tokens": args.draft_tokens,
    }
    groups = {(kind, name): Group() for kind in ("few-shot", "stories") for name in SETTINGS}
    for number, (kind, text) in enumerate(prompts(model, args.prompts, args.tokens)):
        for name, settings in SETTINGS.items():
            for seed in range(1 if name == "greedy" else args.seeds):
                common = {**settings, "seed": seed, "max_tokens": args.tokens, "ignore_eos": True}
                sides = (Options.of(**common), None), (Options.of(**common, **way), draft)
                if (
                    number == seed == 0
                ):  # what is compiled and allocated at the first use is not measured
                    for side in sides:
                        run(model, text, side)
                order = (0, 1) if (number + seed) % 2 else (1, 0)
                results = {}
                for i in order:
                    results[i] = run(model, text, sides[i])
                (ids, timing), (guessed_ids, guessed_timing) = results[0], results[1]
                groups[kind, name].add(ids == guessed_ids, timing, guessed_timing)
        print(f"\r{number + 1} of {2 * args.prompts} prompts", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return groups


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "-m", "--model", help="a folder or a hub id; the model that ships, if none is named"
    )
    parser.add_argument(
        "--draft", metavar="MODEL", help="a smaller model, whose guesses are measured too"
    )
    parser.add_argument("--backend", nargs="+", default=["torch"])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--prompts", type=int, default=25, help="of each kind")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=120, help="new ones")
    parser.add_argument("--draft-tokens", type=int, default=Options().draft_tokens)
    args = parser.parse_args()
    machine = describe(args.backend)
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in sorted(args.backend))
    command = shlex.join(["python", "bench/speculation.py", *sys.argv[1:]])
    memory = machine["memory_bytes"] / 2**30
    print(f"""# Speculative decoding

`{command}`,
on {machine["cores"]} cores of a machine with {machine["cpu"]}, {memory:.0f} GiB, {machine["system"]},
{versions}; load {machine["load_start"]:.1f} at the start.

{args.model or "The model that ships"}, {args.dtype}, {args.tokens} new tokens after each prompt, at
most {args.draft_tokens} drafted tokens per pass. "The same": texts with exactly the same tokens with
and without drafts. Tokens per second are those of decoding, without the prompt, medians over the
texts; the ratio is the median of each text's own ratio.""")
    for backend in args.backend:
        model = minigen.load(args.model, backend, dtype=args.dtype)
        for name in dict.fromkeys((None, args.draft)):
            draft = name and minigen.load(name, backend, dtype=args.dtype)
            title = f"drafts by {name}" if name else "prompt lookup"
            print(f"\n## {backend} ({model.device}), {title}\n")
            print("| " + " | ".join(HEAD) + " |\n" + "|---" * len(HEAD) + "|")
            for key, group in compare(model, draft or None, args).items():
                print("| " + " | ".join([*key, *group.cells()]) + " |", flush=True)
    print("\nNot measured: other machines, GPUs, other models.")


if __name__ == "__main__":
    main()
