"""Memory of decoding: the peak compared with weights and cache, and whether anything grows.

    python bench/memory.py [--shape gpt2] [--backend torch] [--dtype float32] [--tokens 256]
    python bench/memory.py --grow 10000 [--backend torch]

The first writes a checkpoint with random weights in a known shape, opens it in a fresh process as
`minigen generate` does, and compares the peak memory with that of a model of a few megabytes: the
difference is the model's own. The second decodes with a small random model that has room for all
tokens and prints the memory on the way; then the same with attention sinks, whose cache does not
grow. CPU only: on a GPU the framework reports its memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from random_model import write_random

from minigen.backends import get_backend
from minigen.backends.memory import peak_rss
from minigen.benchmark.shapes import SHAPES
from minigen.families import build_architecture
from minigen.generation.loop import generate
from minigen.generation.options import Options
from minigen.generation.reader import Runner
from minigen.generation.rows import Row
from minigen.layers.param import as_arrays, initialise
from minigen.model import load

# As small as a model may be that still uses the CPU kernels.
SMALL = {
    **SHAPES["stories-3m"],
    "hidden_size": 512,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "vocab_size": 2048,
}
PROMPT = 128


def decode_once(folder: str, backend: str, dtype: str, tokens: int) -> dict[str, Any]:
    """In a process of its own: load, decode, and return peak memory and bytes of the cache."""
    runner = load(folder, backend, "cpu", dtype).runner
    ids = np.random.default_rng(0).integers(0, runner.architecture.vocab_size, PROMPT).tolist()
    for _ in generate(runner, [Row(ids)], Options.of(temperature=0, max_tokens=tokens)):
        pass
    cache = cache_bytes_per_token(runner.architecture, dtype) * (PROMPT + tokens)
    return {"peak": peak_rss(), "cache": cache}


def cache_bytes_per_token(architecture: Any, dtype: str) -> int:
    """The bytes of keys and values of one token."""
    values = 0
    for block in architecture.blocks:
        values += 2 * block.attention.kv_heads * block.attention.head_dim
    return values * {"float32": 4, "bfloat16": 2}[dtype]


def in_fresh_process(*args: str) -> dict[str, Any]:
    """The result of `decode_once`."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", *args], capture_output=True, text=True, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def against_weights(args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        memory: dict[str, dict[str, Any]] = {}
        sizes = {}
        for name, config in (("none", SMALL), (args.shape, SHAPES[args.shape])):
            path = write_random(Path(folder, name), config, args.dtype)
            sizes[name] = sum(file.stat().st_size for file in path.glob("*.safetensors"))
            memory[name] = in_fresh_process(str(path), args.backend, args.dtype, str(args.tokens))
    small_peak = memory["none"]["peak"]
    weights = sizes[args.shape]
    cache = memory[args.shape]["cache"]
    own = memory[args.shape]["peak"] - small_peak + sizes["none"]
    ratio = own / (weights + cache)
    print(f"{args.shape}, {args.backend} {args.dtype}, {PROMPT} + {args.tokens} tokens")
    print(f"  weights {mib(weights)}, cache {mib(cache)}")
    print(f"  peak {mib(own)} above that of a small model ({mib(small_peak)})")
    print(f"  ratio {ratio:.2f}")
    return {
        "shape": args.shape,
        "weights": weights,
        **memory[args.shape],
        "own": own,
        "ratio": ratio,
    }


def mib(size: float) -> str:
    return f"{size / 2**20:.1f} MiB"


def resident() -> int:
    """The bytes of this process that are in memory now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def growth(args: argparse.Namespace) -> dict[str, Any]:
    """The memory while `args.grow` tokens are decoded, with room for all and with sinks."""
    small = {**SHAPES["stories-3m"], "num_hidden_layers": 2}
    roomy = build_architecture({**small, "max_position_embeddings": args.grow + PROMPT})
    sinks = build_architecture({**small, "max_position_embeddings": 256}).with_sinks()
    ops = get_backend(args.backend, "cpu", args.dtype)
    options = Options.of(seed=1, max_tokens=args.grow, ignore_eos=True)
    marks = {500, *range(1000, args.grow + 1, 1000)}
    result = {}
    for name, architecture in (("room for all", roomy), ("sinks", sinks)):
        runner = Runner(ops, architecture, as_arrays(ops, initialise(architecture.shapes())))
        per_token = cache_bytes_per_token(architecture, args.dtype)
        print(f"{args.backend} {args.dtype}, {name}: {per_token / 1024:.1f} KiB of cache per token")
        print("  tokens  MiB")
        memory_at = {}
        row = Row(list(range(100)))
        for _ in generate(runner, [row], options):
            tokens = len(row.ids)
            if tokens in marks:
                memory_at[tokens] = resident()
                print(f"  {tokens:6}  {memory_at[tokens] / 2**20:.1f}")
        result[name] = {"token": per_token, "resident": memory_at}
    return result


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        folder, backend, dtype, tokens = sys.argv[2:]
        print(json.dumps(decode_once(folder, backend, dtype, int(tokens))))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="gpt2")
    parser.add_argument("--backend", choices=("torch", "mlx"), default="torch")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument(
        "--grow",
        type=int,
        metavar="TOKENS",
        help="decode this many tokens, and print the memory on the way",
    )
    args = parser.parse_args()
    measure = growth if args.grow else against_weights
    print(json.dumps(measure(args)))


if __name__ == "__main__":
    main()
