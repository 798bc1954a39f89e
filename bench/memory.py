"""Memory of decoding: the peak against weights and cache, and whether anything grows over many tokens.

    python bench/memory.py [--shape gpt2] [--backend torch] [--dtype float32] [--tokens 256]
    python bench/memory.py --grow 10000 [--backend torch]

The first writes a checkpoint with random weights in a known shape, opens it in a fresh process as `minigen generate`
does, and compares that process's peak with the peak of one that does the same with a model of a few megabytes: what is
left is the model's. The second decodes a small random model with room for all tokens and prints the memory on the way,
and the same with attention sinks, whose cache stays at one size. CPU only: on a GPU the framework counts.
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

# As small as a model may be for which the kernels of a CPU are started.
SMALL = {
    **SHAPES["stories-3m"],
    "hidden_size": 512,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "vocab_size": 2048,
}
PROMPT = 128


def one(folder: str, backend: str, dtype: str, tokens: int) -> dict[str, Any]:
    """In a process of its own: loads, decodes, and says its peak, and the bytes of weights and cache."""
    runner = load(folder, backend, "cpu", dtype).runner
    ids = np.random.default_rng(0).integers(0, runner.architecture.vocab_size, PROMPT).tolist()
    for _ in generate(runner, [Row(ids)], Options.of(temperature=0, max_tokens=tokens)):
        pass
    size = 4 if dtype == "float32" else 2
    cache = sum(2 * b.attention.kv_heads * b.attention.head_dim for b in runner.architecture.blocks)
    return {"peak": peak_rss(), "cache": cache * (PROMPT + tokens) * size}


def fresh(*args: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, __file__, "--one", *args], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def against_weights(args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        found, sizes = {}, {}
        for name, config in (("none", SMALL), (args.shape, SHAPES[args.shape])):
            path = write_random(Path(folder, name), config, args.dtype)
            sizes[name] = sum(file.stat().st_size for file in path.glob("*.safetensors"))
            found[name] = fresh(str(path), args.backend, args.dtype, str(args.tokens))
    own = found[args.shape]["peak"] - found["none"]["peak"] + sizes["none"]
    least = sizes[args.shape] + found[args.shape]["cache"]
    print(f"{args.shape}, {args.backend} {args.dtype}, {PROMPT} + {args.tokens} tokens")
    print(f"  weights {sizes[args.shape] / 2**20:.1f} MiB, cache {found[args.shape]['cache'] / 2**20:.1f} MiB")
    print(f"  peak {own / 2**20:.1f} MiB above that of a small model ({found['none']['peak'] / 2**20:.1f} MiB)")
    print(f"  ratio {own / least:.2f}")
    return {"shape": args.shape, "weights": sizes[args.shape], **found[args.shape], "own": own, "ratio": own / least}


def resident() -> int:
    """Bytes of this process in memory now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def growth(args: argparse.Namespace) -> dict[str, Any]:
    result = {}
    for name in ("room for all", "sinks"):
        config = {
            **SHAPES["stories-3m"],
            "num_hidden_layers": 2,
            "max_position_embeddings": 256 if name == "sinks" else args.grow + PROMPT,
        }
        architecture = build_architecture(config).with_sinks() if name == "sinks" else build_architecture(config)
        ops = get_backend(args.backend, "cpu", args.dtype)
        runner = Runner(ops, architecture, as_arrays(ops, initialise(architecture.shapes())))
        seen, row = {}, Row(list(range(100)))
        for _ in generate(runner, [row], Options.of(seed=1, max_tokens=args.grow, ignore_eos=True)):
            if len(row.ids) in {500, *range(1000, args.grow + 1, 1000)}:
                seen[len(row.ids)] = resident()
        size = 4 if args.dtype == "float32" else 2
        token = sum(2 * b.attention.kv_heads * b.attention.head_dim * size for b in architecture.blocks)
        print(f"{args.backend} {args.dtype}, {name}: a token of cache is {token / 1024:.1f} KiB")
        print("  tokens  MiB\n" + "\n".join(f"  {n:6}  {size / 2**20:.1f}" for n, size in seen.items()))
        result[name] = {"token": token, "resident": seen}
    return result


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        folder, backend, dtype, tokens = sys.argv[2:]
        print(json.dumps(one(folder, backend, dtype, int(tokens))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="gpt2")
    parser.add_argument("--backend", choices=("torch", "mlx"), default="torch")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--grow", type=int, metavar="TOKENS", help="decode so many tokens and watch the memory")
    args = parser.parse_args()
    print(json.dumps(growth(args) if args.grow else against_weights(args)))


if __name__ == "__main__":
    main()
