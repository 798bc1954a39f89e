"""Decoding one text on a GPU: minigen, and transformers, eager and compiled with a static cache.

    python bench/gpu.py [--shapes gpt2 gpt2-xl llama-1b] [--tokens 512] > bench/results/gpu.md

The compiled peer works as gpt-fast does: torch.compile in the mode reduce-overhead, which captures
CUDA graphs, with a static cache, by the `generate` of transformers, which compiles only on a GPU.
All have random weights of one shape and dtype, start with one token and decode greedily without
stopping. They take turns, round by round, and the first round is dropped. The output is Markdown.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

from minigen.backends.machine import describe, measure_bandwidth
from minigen.benchmark.plan import Case, shape_of
from minigen.benchmark.session import Session, Subject
from minigen.models.costs import Costs

TARGETS = {"gpt2": "4,000 tokens/s", "gpt2-xl": "55 %", "llama-1b": "55 %"}
Work = Callable[[], float]  # tokens per second of one run


def ours(session: Session, tokens: int) -> Work:
    return lambda: tokens / session.run(Case("tg", tokens)).seconds


def theirs(config: Any, device: str, dtype: str, tokens: int, static: bool) -> Work:
    with torch.device(device):
        model: Any = transformers.AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, dtype)
        ).eval()
    ids = torch.ones((1, 1), dtype=torch.int64, device=device)
    settings: dict[str, Any] = {
        "max_new_tokens": tokens,
        "min_new_tokens": tokens,
        "do_sample": False,
    }
    if static:
        compiling = transformers.CompileConfig(
            mode="reduce-overhead", fullgraph=True, dynamic=False
        )
        settings |= {"cache_implementation": "static", "compile_config": compiling}

    def work() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        return tokens / (time.perf_counter() - start)

    return work


def measure(shape: str, args: argparse.Namespace) -> tuple[dict[str, list[float]], float, float]:
    """Measure a shape.

    Returns the tokens per second of each contestant in each round, the bytes per second of memory,
    and the bytes that a token reads.
    """
    fields = shape_of(shape)
    session = Session(Subject(**fields, backend="torch", device=args.device, dtype=args.dtype))
    session.begin()
    session.load()
    settings = {
        "attn_implementation": "sdpa",
        "pad_token_id": 0,
        "eos_token_id": None,
        "bos_token_id": None,
    }
    config = transformers.AutoConfig.for_model(**fields["config"], **settings)
    costs = Costs.of(session.runner.architecture)
    read = costs.bytes_read(args.tokens // 2, 1, 1, args.dtype)  # halfway through the text
    works = {
        "minigen": ours(session, args.tokens),
        "transformers, compiled, static cache": theirs(
            config, args.device, args.dtype, args.tokens, static=True
        ),
        "transformers, eager": theirs(config, args.device, args.dtype, args.tokens, static=False),
    }
    speeds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(args.rounds + 1):
        for name, work in works.items():
            speed = work()
            if number > 0:
                speeds[name].append(speed)
    return speeds, measure_bandwidth(session.ops), read


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shapes", nargs="+", default=list(TARGETS), help="as minigen bench names them"
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    machine = describe(["torch"])
    device = machine["cpu"]
    if args.device.startswith("cuda"):
        device = torch.cuda.get_device_name(args.device)
    command = shlex.join(["python", "bench/gpu.py", *sys.argv[1:]])
    graphs = os.environ.get("MINIGEN_GRAPHS", "1")
    print(f"""# Decoding one text on a GPU

`{command}`, on {device}, {machine["system"]},
torch {torch.__version__}, transformers {transformers.__version__}; MINIGEN_GRAPHS={graphs}.

One row, {args.dtype}, random weights, {args.tokens} tokens after one; medians of {args.rounds} rounds,
the first dropped. The share is that of the memory bandwidth, measured in the same run, by the bytes
that a token reads.

| shape | which | tokens/s | share | minigen is | target of minigen |
|---|---|---|---|---|---|""")
    for shape in args.shapes:
        speeds, bandwidth, read = measure(shape, args)
        own = median(speeds["minigen"])
        target = TARGETS.get(shape, "")  # minigen is the first
        for name, samples in speeds.items():
            speed = median(samples)
            share = f"{speed * read / bandwidth:.0%}"
            ratio = f"{own / speed:.2f}"
            cells = (shape, name, f"{speed:,.0f}", share, ratio, target)
            print(f"| {' | '.join(cells)} |", flush=True)
            target = ""


if __name__ == "__main__":
    main()
