"""Training speed: minigen against a plain PyTorch loop as nanoGPT's train.py does it, in one run, round by round.

    python bench/train_speed.py [--quick] [--shapes baby small lstm] [--rounds 5] [--compile]

Every contestant is a process of its own, so that none gains or loses by another's settings; they take turns, and while
one works the others wait. The peer is what nanoGPT runs on a CPU by default: nn.Linear modules in float32,
F.scaled_dot_product_attention, AdamW, no compile; for the LSTM, nn.LSTM in the same loop. Model FLOPs a token are
counted as there, 6 N + 12 L C T, and MFU is of the best product of two 2048 x 2048 matrices between the rounds.
Where torch multiplies float32 by MKL and runs an LSTM by oneDNN, which is faster on AMD, that one can exceed 100 %.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

SHAPES: dict[str, dict[str, int]] = {
    "baby": {"layers": 6, "heads": 6, "width": 384, "context": 256, "batch": 64},
    "small": {"layers": 4, "heads": 4, "width": 128, "context": 64, "batch": 12},
    "lstm": {"layers": 2, "heads": 0, "width": 256, "context": 256, "batch": 64},
}
VOCABULARY = 65  # the characters of tinyshakespeare
SETTINGS = {"lr": 1e-3, "betas": (0.9, 0.99), "decay": 0.1, "clip": 1.0}
Work = Callable[[], Any]


def draw_batch(rng: np.random.Generator, text: Any, s: dict[str, int]) -> tuple[Any, Any]:
    at = rng.integers(0, len(text) - s["context"] - 1, s["batch"])[:, None] + np.arange(s["context"])
    return text[at], text[at + 1]


def minigen_step(s: dict[str, int], dtype: str, compiled: bool) -> Work:
    from minigen.backends import get_backend
    from minigen.families import HubConfig, find_family
    from minigen.layers.param import initialise
    from minigen.training.trainer import Batch, Optimizer, Trainer

    if s["heads"]:
        config = {"model_type": "gpt2", "n_embd": s["width"], "n_head": s["heads"], "n_layer": s["layers"]}
        config["n_positions"] = s["context"]
    else:
        config = {"model_type": "lstm_lm", "embedding_size": s["width"], "hidden_size": s["width"]}
        config["num_layers"] = s["layers"]
    config["vocab_size"] = VOCABULARY
    architecture = find_family(config).build(HubConfig(config))
    optimizer = Optimizer("adamw", SETTINGS["betas"], 1e-8, SETTINGS["decay"], SETTINGS["clip"])
    ops = get_backend("torch", "cpu", dtype)
    trainer = Trainer(ops, architecture, initialise(architecture.shapes()), optimizer, compile=compiled)
    rng, text, number = np.random.default_rng(0), np.random.default_rng(1).integers(0, VOCABULARY, 10**6), 0

    def step() -> None:
        nonlocal number
        ids, targets = draw_batch(rng, text, s)
        trainer.step([Batch(ids, targets, np.ones(ids.shape, np.float32))], SETTINGS["lr"], number)
        number += 1

    return step


def plain_step(s: dict[str, int]) -> Work:
    import torch
    import torch.nn.functional as F
    from torch import nn

    C = s["width"]

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(C), nn.LayerNorm(C)
            self.qkv, self.out = nn.Linear(C, 3 * C), nn.Linear(C, C)
            self.up, self.down, self.gelu = nn.Linear(C, 4 * C), nn.Linear(4 * C, C), nn.GELU()

        def forward(self, x: Any) -> Any:
            B, T, _ = x.shape
            q, k, v = (
                t.view(B, T, s["heads"], C // s["heads"]).transpose(1, 2) for t in self.qkv(self.norm1(x)).split(C, 2)
            )
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).contiguous().view(B, T, C))
            return x + self.down(self.gelu(self.up(self.norm2(x))))

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.positions = nn.Embedding(VOCABULARY, C), nn.Embedding(s["context"], C)
            self.blocks = nn.ModuleList(Block() for _ in range(s["layers"]))
            self.norm, self.head = nn.LayerNorm(C), nn.Linear(C, VOCABULARY, bias=False)
            self.head.weight = self.tokens.weight

        def forward(self, ids: Any) -> Any:
            x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x))

    class LSTM(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.head = nn.Embedding(VOCABULARY, C), nn.Linear(C, VOCABULARY)
            self.lstm = nn.LSTM(C, C, s["layers"], batch_first=True)

        def forward(self, ids: Any) -> Any:
            return self.head(self.lstm(self.tokens(ids))[0])

    torch.manual_seed(0)
    model = Transformer() if s["heads"] else LSTM()
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": SETTINGS["decay"]},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=SETTINGS["lr"], betas=SETTINGS["betas"])
    rng, text = np.random.default_rng(0), np.random.default_rng(1).integers(0, VOCABULARY, 10**6)

    def step() -> None:
        ids, targets = (torch.from_numpy(x) for x in draw_batch(rng, text, s))
        loss = F.cross_entropy(model(ids).view(-1, VOCABULARY), targets.view(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, SETTINGS["clip"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return step


def product(dtype: str) -> Callable[[], float]:
    """One matrix product of 2048 x 2048, the best of a few: FLOP/s."""
    import torch

    a, b = (torch.randn(2048, 2048).to(getattr(torch, dtype)) for _ in range(2))

    def measure() -> float:
        found = []
        for _ in range(6):
            began = time.perf_counter()
            a @ b
            found.append(time.perf_counter() - began)
        return 2 * 2048**3 / min(found)

    return measure


def work(name: str, shape: str) -> None:
    """A contestant: for each line on stdin (how many steps), writes the seconds they took."""
    if name.startswith("peak"):
        measure = product(name.split("-")[1])
        for _ in sys.stdin:
            print(measure(), flush=True)
        return
    s = SHAPES[shape]
    step = plain_step(s) if name == "plain" else minigen_step(s, name.split("-")[1], name.endswith("-compile"))
    for line in sys.stdin:
        began = time.perf_counter()
        for _ in range(int(line)):
            step()
        print(time.perf_counter() - began, flush=True)


class Contestant:
    def __init__(self, name: str, shape: str) -> None:
        self.name, self.found = name, []  # type: ignore[var-annotated]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process: Any = subprocess.Popen([sys.executable, __file__, "--work", name, shape], **pipes)  # type: ignore[call-overload]

    def ask(self, steps: int) -> float:
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def flops(s: dict[str, int]) -> int:
    """Model FLOPs a token, forward and backward."""
    C = s["width"]
    if not s["heads"]:
        return 6 * (s["layers"] * 8 * C * C + VOCABULARY * C)
    return 6 * (s["layers"] * 12 * C * C + VOCABULARY * C) + 12 * s["layers"] * C * s["context"]


def compare(shape: str, rounds: int, steps: int, compiled: bool) -> dict[str, Any]:
    s = SHAPES[shape]
    names = ["plain", "minigen-float32", "minigen-bfloat16"] + (
        ["minigen-bfloat16-compile"] if compiled and s["heads"] else []
    )
    contestants = [Contestant(name, shape) for name in [*names, "peak-float32", "peak-bfloat16"]]
    for contestant in contestants:
        contestant.ask(2)  # dropped
    for _ in range(rounds):
        for contestant in contestants:
            contestant.found.append(contestant.ask(steps))
    for contestant in contestants:
        contestant.close()
    tokens = steps * s["batch"] * s["context"]
    peaks = {c.name: max(c.found) for c in contestants if c.name.startswith("peak")}
    rows = {}
    plain = np.array(contestants[0].found)
    print(f"\n{shape}: {s}, {rounds} rounds of {steps} steps")
    print(f"{'':26} {'tokens/s':>9} {'min':>8} {'max':>8} {'ratio':>6} {'MFU':>6}")
    for c in contestants[: len(names)]:
        seconds = np.array(c.found)
        speed = tokens / seconds
        ratio = float(np.median(plain / seconds))
        peak = peaks["peak-bfloat16" if "bfloat16" in c.name else "peak-float32"]
        mfu = float(np.median(speed)) * flops(s) / peak
        rows[c.name] = {"tokens_per_s": [round(x) for x in speed], "ratio": round(ratio, 3), "mfu": round(mfu, 3)}
        print(
            f"{c.name:26} {np.median(speed):9.0f} {speed.min():8.0f} {speed.max():8.0f} {ratio:5.2f}x {100 * mfu:5.1f}%"
        )
    print("peaks: " + ", ".join(f"{name[5:]} {peak / 1e9:.0f} GFLOP/s" for name, peak in peaks.items()))
    sys.stdout.flush()
    return {"shape": s, "rows": rows, "peaks": peaks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two rounds of few steps")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile, which takes a minute to start")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(*args.work)
        return
    from importlib.metadata import version

    rounds = 2 if args.quick else args.rounds
    cpu = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            cpu = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), cpu)
    machine = f"{cpu}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.2f} at the start"
    print(f"{machine}; torch {version('torch')}, numpy {version('numpy')}, python {platform.python_version()}")
    steps = {"baby": 1 if args.quick else 2, "small": 20 if args.quick else 50, "lstm": 3 if args.quick else 8}
    results = {shape: compare(shape, rounds, steps[shape], args.compile) for shape in args.shapes}
    print(json.dumps({"machine": machine, "torch": version("torch"), "rounds": rounds, "results": results}))


if __name__ == "__main__":
    main()
