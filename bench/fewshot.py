"""Choices after a long shared prefix: minigen and lm-evaluation-harness on transformers.

    pip install "lm-eval[hf]" && python bench/fewshot.py [--choice-tokens 2] [--json FILE]

The model has the shape of GPT-2-124M and random weights in float32. The work is a few-shot prefix
of 1,000 tokens and 64 items of 20 tokens with 4 choices each. lm-eval reads the prefix again for
every item, or for every choice if choices have several tokens. The seconds are compared with the
ideal: every token that must be read is read once, at the prefill rate of the same run.
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
    """The choices of all items, each with the text before it."""
    rng = np.random.default_rng(0)

    def draw(count: int) -> list[int]:
        ids: list[int] = rng.integers(0, GPT2["vocab_size"], count).tolist()
        return ids

    prefix = draw(args.prefix)
    texts = []
    for _ in range(args.items):
        before = prefix + draw(args.item_tokens)
        for _ in range(args.choices):
            texts.append(Text(before + draw(args.choice_tokens), len(before)))
    return texts


def timed(work: Callable[[], Any], runs: int) -> tuple[list[float], Any]:
    """The seconds of each run, and the result of the last one."""
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return seconds, result


def minigen_runner(backend: str) -> Runner:
    return random_runner(get_backend(backend, None, "float32"), GPT2)


def minigen_scores(runner: Runner, texts: list[Text]) -> tuple[list[float], int]:
    """The log-probability of each choice, and the number of tokens that were read."""
    shared = SharedText(runner, 1024)
    logprobs = Scorer(shared).score(texts)
    return [float(choice.sum()) for choice in logprobs], shared.tokens_read


def prefill_rate(runner: Runner) -> float:
    """Tokens per second of one pass over 512 tokens, the best of three."""
    ids = np.arange(512)[None]

    def read() -> None:
        state = runner.architecture.new_state(runner.ops, 1, 512)
        runner.ops.sync(runner.read(ids, state))

    seconds, _ = timed(read, 3)
    return 512 / min(seconds)


def lm_eval(runner: Runner) -> Callable[[list[Text]], list[float]]:
    """lm-eval's own likelihood loop over the same token ids, with the same weights."""
    import torch
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer, models
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    keys = ("vocab_size", "n_embd", "n_head", "n_layer", "n_positions")
    peer = GPT2LMHeadModel(GPT2Config(**{key: GPT2[key] for key in keys})).eval()
    peer.load_state_dict(peer_weights(runner), strict=False)
    # lm-eval wants a tokenizer, but does not use it here.
    vocab = {f"t{i}": i for i in range(GPT2["vocab_size"])}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocab, "t0")), eos_token="t0"
    )
    harness = HFLM(
        pretrained=peer, tokenizer=tokenizer, batch_size=1, device="cpu", max_length=1024
    )

    def scores(texts: list[Text]) -> list[float]:
        requests = []
        for number, text in enumerate(texts):
            before, choice = list(text.ids[: text.start]), list(text.ids[text.start :])
            requests.append(((f"{number}", "x"), before, choice))
        with torch.inference_mode():
            results = harness._loglikelihood_tokens(requests, disable_tqdm=True)
        return [score for score, _ in results]

    return scores


def peer_weights(runner: Runner) -> dict[str, Any]:
    """Our weights by GPT-2's own names, as torch's tensors."""
    import torch

    from minigen.checkpoints.plan import plan
    from minigen.families.gpt2 import FAMILY
    from minigen.tree import flatten

    params = flatten(runner.params)
    weights = {}
    for entry in plan(runner.architecture, FAMILY, [FAMILY.prefix]):
        weight = torch.from_numpy(runner.ops.numpy(params[entry.path]).copy())
        if entry.transposed:
            weight = weight.T.contiguous()
        weights[entry.pieces[0].name] = weight
    return weights


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in (
        ("prefix", 1000),
        ("items", 64),
        ("item-tokens", 20),
        ("choices", 4),
        ("choice-tokens", 2),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--no-peer", action="store_true", help="do not run lm-eval, which takes minutes"
    )
    args = parser.parse_args()
    setting = dict(vars(args))
    del setting["no_peer"], setting["runs"]
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
        "setting": setting,
        "minigen_s": seconds,
        "minigen_median_s": ours,
        "tokens_read": read,
        "tokens_one_by_one": sum(len(text.ids) - 1 for text in texts),
        "prefill_tps": rate,
        "ideal_s": read / rate,
        "times_ideal": ours * rate / read,
    }
    print(
        f"minigen {ours:.2f} s (median of {args.runs}), {read} tokens read; "
        f"ideal {read / rate:.2f} s"
    )
    if not args.no_peer:
        scores_of_peer = lm_eval(runner)
        (peer,), theirs = timed(lambda: scores_of_peer(texts), 1)
        difference = float(np.abs(np.subtract(scores, theirs)).max())
        print(
            f"lm-eval {peer:.1f} s, {peer / ours:.0f} times as long; "
            f"largest difference {difference:.1e}"
        )
        result |= {"lm_eval_s": peer, "ratio": peer / ours, "largest_difference": difference}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
