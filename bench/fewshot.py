"""Choices behind a long shared prefix: minigen against lm-evaluation-harness on transformers, in one run.

    pip install "lm-eval[hf]" && python bench/fewshot.py [--choice-tokens 2] [--json FILE]

GPT-2-124M's shape with random weights, float32: a few-shot prefix of 1,000 tokens, 64 items of 20 tokens, 4 choices
each. lm-eval reads the prefix again for every item (for every choice, where choices have several tokens). Beside the
seconds stands the ideal: the tokens that must be read, each once, at the prefill rate of the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from random_model import random_runner

from minigen.backends import get_backend
from minigen.benchmark.shapes import SHAPES
from minigen.evaluation.scoring import Scorer, Text
from minigen.generation.reader import Runner
from minigen.generation.shared_text import SharedText

GPT2 = SHAPES["gpt2"]


def make_texts(args: argparse.Namespace) -> list[Text]:
    rng = np.random.default_rng(0)

    def draw(count: int) -> list[int]:
        return [int(i) for i in rng.integers(0, GPT2["vocab_size"], count)]

    prefix = draw(args.prefix)
    texts = []
    for _ in range(args.items):
        before = prefix + draw(args.item_tokens)
        texts += [Text(before + draw(args.choice_tokens), len(before)) for _ in range(args.choices)]
    return texts


def timed(work: Callable[[], Any], runs: int) -> tuple[list[float], Any]:
    """Seconds of each run, and what the last one gave."""
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        found = work()
        seconds.append(time.perf_counter() - began)
    return seconds, found


def minigen_runner(backend: str) -> Runner:
    return random_runner(get_backend(backend, None, "float32"), GPT2)


def minigen_scores(runner: Runner, texts: list[Text]) -> tuple[list[float], int]:
    shared = SharedText(runner, 1024)
    return [float(x.sum()) for x in Scorer(shared).score(texts)], shared.tokens_read


def prefill_rate(runner: Runner) -> float:
    """Tokens a second of one pass over 512 tokens, the better of three."""
    ids = np.arange(512)[None]
    seconds, _ = timed(lambda: runner.ops.sync(runner.read(ids, runner.architecture.new_state(runner.ops, 1, 512))), 3)
    return 512 / min(seconds)


def lm_eval(runner: Runner) -> Callable[[list[Text]], list[float]]:
    """The same weights in transformers, and the same token ids through lm-eval's own likelihood loop."""
    import torch
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer, models
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    keys = ("vocab_size", "n_embd", "n_head", "n_layer", "n_positions")
    peer = GPT2LMHeadModel(GPT2Config(**{key: GPT2[key] for key in keys})).eval()
    peer.load_state_dict(peer_weights(runner), strict=False)
    vocab = {f"t{i}": i for i in range(GPT2["vocab_size"])}  # only there because lm-eval wants one
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocab, "t0")), eos_token="t0")
    harness = HFLM(pretrained=peer, tokenizer=tokenizer, batch_size=1, device="cpu", max_length=1024)

    def scores(texts: list[Text]) -> list[float]:
        requests = [((f"{i}", "x"), list(t.ids[: t.start]), list(t.ids[t.start :])) for i, t in enumerate(texts)]
        with torch.inference_mode():
            return [score for score, _ in harness._loglikelihood_tokens(requests, disable_tqdm=True)]

    return scores


def peer_weights(runner: Runner) -> dict[str, Any]:
    """GPT-2's own names for our weights, which are torch's where the backend is."""
    import torch

    from minigen.checkpoints.plan import plan
    from minigen.families.gpt2 import FAMILY
    from minigen.tree import flatten

    flat = {path: torch.from_numpy(runner.ops.numpy(x).copy()) for path, x in flatten(runner.params).items()}
    entries = plan(runner.architecture, FAMILY, [FAMILY.prefix])
    return {e.pieces[0].name: flat[e.path].T.contiguous() if e.transposed else flat[e.path] for e in entries}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("prefix", 1000), ("items", 64), ("item-tokens", 20), ("choices", 4), ("choice-tokens", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--no-peer", action="store_true", help="without lm-eval, which takes minutes")
    args = parser.parse_args()
    texts = make_texts(args)
    runner = minigen_runner(args.backend)
    load = os.getloadavg()[0]
    minigen_scores(runner, texts[:8])  # the first run is dropped
    rate = prefill_rate(runner)
    seconds, (scores, read) = timed(lambda: minigen_scores(runner, texts), args.runs)
    rate = max(rate, prefill_rate(runner))
    ours = float(np.median(seconds))
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {load:.2f} at the start",
        "setting": {k: v for k, v in vars(args).items() if k not in ("no_peer", "runs")},
        "minigen_s": seconds,
        "minigen_median_s": ours,
        "tokens_read": read,
        "tokens_one_by_one": sum(len(text.ids) - 1 for text in texts),
        "prefill_tps": rate,
        "ideal_s": read / rate,
        "times_ideal": ours * rate / read,
    }
    print(f"minigen {ours:.2f} s (median of {args.runs}), {read} tokens read; ideal {read / rate:.2f} s")
    if not args.no_peer:
        scores_of_peer = lm_eval(runner)
        (peer,), theirs = timed(lambda: scores_of_peer(texts), 1)
        difference = float(np.abs(np.subtract(scores, theirs)).max())
        print(f"lm-eval {peer:.1f} s, {peer / ours:.0f} times as long; largest difference {difference:.1e}")
        result |= {"lm_eval_s": peer, "ratio": peer / ours, "largest_difference": difference}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
