"""How far a text depends on how it is generated: counts of texts that differ.

    python bench/what_holds.py [--tokens 20]

Each model continues the same prompts greedily and with two seeds: each prompt alone; all in one
batch; with drafts by a model that is right often and wrong sometimes; after a shared beginning that
is read once; in a state that was rolled back; and alone on the other backend. The models are a
small llama and a small gpt2 with random weights, a llama that is large enough for torch's CPU
kernels, and the one that ships. On a CPU, with one thread.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from random_model import write_random

import minigen
from minigen.cli.display.tables import WIDE, render
from minigen.generation.dispatch import steps
from minigen.generation.options import Options
from minigen.generation.reader import Reader, Runner
from minigen.generation.rows import Row
from minigen.generation.shared_text import BranchReader, SharedText
from minigen.prompt_cache import CachedReader

LLAMA = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}
GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 512,
    "n_embd": 64,
    "n_head": 4,
    "n_layer": 2,
    "n_positions": 256,
}
LARGE = LLAMA | {"hidden_size": 512, "intermediate_size": 1088, "num_attention_heads": 8}
PRECISIONS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32"},
    "float32, 8 bits a weight": {"dtype": "float32", "quant": "8"},
    "float32, 4 bits a weight": {"dtype": "float32", "quant": "4"},
    "float32, --kv-bits 8": {"dtype": "float32", "kv_bits": 8},
    "bfloat16": {"dtype": "bfloat16"},
    "float16": {"dtype": "float16"},
}
SETTINGS = (
    {"temperature": 0},
    {"temperature": 1.0, "seed": 7, "top_p": 0.9},
    {"temperature": 0.8, "seed": 8},
)
LENGTHS = (1, 30, 7, 13, 2, 19)  # of the prompts, in tokens
WAYS = (
    "in a batch",
    "with guesses",
    "on a shared text",
    "on a state taken back",
    "on the other backend",
)

Text = tuple[int, ...]


def write(
    reader: Reader,
    prompts: Sequence[Sequence[int]],
    tokens: int,
    settings: dict[str, Any],
    draft: Any = None,
) -> list[Text]:
    rows = [Row(list(prompt)) for prompt in prompts]
    options = Options.of(max_tokens=tokens, ignore_eos=True, **settings)
    drafting = None
    if draft is not None:
        drafting = SharedText(draft)
    for _ in steps(reader, rows, options, draft=drafting):
        pass
    return [tuple(row.ids) for row in rows]


def alone(
    runner: Runner, prompts: Sequence[Sequence[int]], tokens: int, settings: dict[str, Any]
) -> list[Text]:
    return [write(runner, [prompt], tokens, settings)[0] for prompt in prompts]


def taken_back(
    runner: Runner, prompt: Sequence[int], tokens: int, settings: dict[str, Any]
) -> Text:
    """The text after a prompt, in a state that had read its first half and then something else."""
    shared = SharedText(runner)
    shared.seek([*prompt[: len(prompt) // 2], 9, 8, 7])
    return write(CachedReader(shared), [prompt], tokens, settings)[0]


def differing(some: Sequence[Text], others: Sequence[Text]) -> int:
    return sum(text != other for text, other in zip(some, others, strict=True))


def random_ids(draw: random.Random, vocabulary: int, length: int) -> list[int]:
    return [draw.randrange(3, vocabulary) for _ in range(length)]


def count(
    folder: Path | None, backend: str, precision: dict[str, Any], tokens: int
) -> tuple[Counter[str], list[Text]]:
    """How many texts differ from those of each prompt alone, by the way; and those."""
    where: dict[str, Any] = {"backend": backend, "device": "cpu"}
    if backend == "torch":
        where["threads"] = 1
    runner = minigen.load(folder, **where, **precision).runner
    draft = minigen.load(folder, **where, **{"quant": "4", **precision}).runner
    draw = random.Random(3)
    vocabulary = runner.architecture.vocab_size
    beginning = random_ids(draw, vocabulary, 12)
    prompts = [beginning + random_ids(draw, vocabulary, length) for length in LENGTHS]
    found, texts = Counter[str](), list[Text]()
    for settings in SETTINGS:
        own = alone(runner, prompts, tokens, settings)
        shared = BranchReader(SharedText(runner))
        guessed = [write(runner, [prompt], tokens, settings, draft)[0] for prompt in prompts]
        back = [taken_back(runner, prompt, tokens, settings) for prompt in prompts]
        batch = write(runner, prompts, tokens, settings)
        on_shared = write(shared, prompts, tokens, settings)
        for way, others in zip(WAYS, (batch, guessed, on_shared, back), strict=False):
            found[way] += differing(own, others)
        texts += own
    return found, texts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=20)
    args = parser.parse_args()
    rows: dict[tuple[str, str], Counter[str]] = {}
    total = 0
    with tempfile.TemporaryDirectory() as folder:
        models = []
        for name, config in (("0", LLAMA), ("1", GPT2), ("2", LARGE)):
            models.append(write_random(Path(folder, name), config, scale=8))
        for model in (*models, None):
            for name, precision in PRECISIONS.items():
                torch, torch_texts = count(model, "torch", precision, args.tokens)
                mlx, mlx_texts = count(model, "mlx", precision, args.tokens)
                for backend, found in (("torch", torch), ("MLX", mlx)):
                    found[WAYS[-1]] = differing(torch_texts, mlx_texts)
                    rows.setdefault((backend, name), Counter()).update(found)
            total += len(torch_texts)
    table = []
    for key, differences in sorted(rows.items(), reverse=True):
        table.append([*key, *(str(differences[way]) for way in WAYS)])
    print(f"texts of {args.tokens} tokens that differ, of {total}")
    print(
        render(
            ["backend", "precision", *WAYS],
            table,
            WIDE,
            terminal=False,
            left=["backend", "precision"],
        )
    )


if __name__ == "__main__":
    main()
