"""What nanoGPT's CPU setting for Shakespeare's characters can reach in the same number of seconds.

    python bench/shakespeare.py tinyshakespeare.txt [--seeds 1 2 3] [--changes]

Runs `minigen train` with --preset shakespeare_char, which is that setting, and with --preset
shakespeare, one after the other for each seed. Reports the loss on the whole validation split and
the seconds of the whole command. With --changes, it goes from the one to the other step by step:
each line changes one thing in the setting above it, with as many training steps as fit into the
seconds of the first.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHANGES: list[tuple[str, dict[str, str]]] = [
    ("Muon for the matrices, lr 4e-3", {"optimizer": "muon", "lr": "4e-3", "warmup": "50"}),
    ("Llama's layout", {"model": "llama"}),
    ("flat, then linear", {"schedule": "wsd", "decay": "0.6", "final": "0.05"}),
    ("a context of 128", {"context": "128"}),
    ("bfloat16, which the preset leaves out", {"dtype": "bfloat16"}),
]
STEPS = 2000  # of nanoGPT's setting


def train(data: str, preset: str, settings: dict[str, str], seed: int) -> tuple[float, float]:
    """(loss at the end, seconds of the command)."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        flags = []
        for name, value in settings.items():
            flags += [f"--{name}", value]
        flags += [
            "--seed",
            str(seed),
            "--eval-every",
            "1000000",
            "--sample-tokens",
            "0",
            "--out",
            str(run),
        ]
        began = time.perf_counter()
        command = [sys.executable, "-m", "minigen", "train", data, "--preset", preset, *flags]
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.perf_counter() - began
        loss = math.nan
        for line in (run / "log.jsonl").read_text().splitlines():
            row = json.loads(line)
            if row["kind"] == "evaluation":
                loss = row["loss"]
        return loss, seconds


def fitting(data: str, settings: dict[str, str], seconds: float) -> int:
    """How many steps of a setting take so many seconds, from two short runs."""
    _, low = train(data, "shakespeare_char", {**settings, "steps": "50"}, 0)
    _, high = train(data, "shakespeare_char", {**settings, "steps": "250"}, 0)
    each = (high - low) / 200
    return max(1, int(50 + (seconds - low) / each))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--changes", action="store_true", help="what each change gave, for the first seed"
    )
    args = parser.parse_args()
    machine = f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.2f} at the start"
    print(machine, flush=True)
    results: dict[str, list[tuple[float, float]]] = {"shakespeare_char": [], "shakespeare": []}
    train(args.data, "shakespeare_char", {"steps": "5"}, 0)  # dropped: it reads the data
    for seed in args.seeds:
        for preset, found in results.items():
            found.append(train(args.data, preset, {}, seed))
            print(
                f"{preset:17} seed {seed}: loss {found[-1][0]:.4f} in {found[-1][1]:.1f} s",
                flush=True,
            )
    for preset, found in results.items():
        losses, seconds = zip(*found, strict=True)
        mean, middle = statistics.mean(losses), statistics.median(seconds)
        print(f"{preset:17} mean {mean:.4f}, median {middle:.1f} s")
    lines = []
    if args.changes:
        settings: dict[str, str] = {}
        budget = results["shakespeare_char"][0][1]
        for name, change in CHANGES:
            settings |= change
            steps = fitting(args.data, settings, budget)
            loss, seconds = train(
                args.data, "shakespeare_char", {**settings, "steps": str(steps)}, args.seeds[0]
            )
            lines.append(
                {"change": name, "steps": steps, "loss": loss, "seconds": round(seconds, 1)}
            )
            print(f"{name:40} {steps:5} steps  loss {loss:.4f} in {seconds:.1f} s", flush=True)
    print(json.dumps({"machine": machine, "results": results, "changes": lines}))


if __name__ == "__main__":
    main()
