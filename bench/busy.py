"""A busy machine: tokens per second while other programs keep the cores busy.

    python bench/busy.py [MODEL] [--shape smollm2-135m] [--loops 0 1 2 4] [--waits passive 20000]

Each contestant has a process of its own, and they take turns. `--waits` adds contestants whose
threads wait for each other in other ways than those of `minigen` commands: "passive" (they sleep at
once), "active" (they poll for work), or a number of iterations of polling before they sleep
(GOMP_SPINCOUNT). The column "/ one thread" is the speed with all threads divided by that with one
thread, next to the same programs. The tests are a prompt of 128 tokens, decoding 16 tokens after
it, and training steps of 8 rows of 64 tokens with a small model (`--train-shape`).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any

from minigen.backends.machine import describe
from minigen.benchmark.plan import Case, model_of, shape_of
from minigen.benchmark.session import Subject
from minigen.benchmark.training import TrainedSubject
from minigen.benchmark.worker import Worker
from minigen.cli.display.tables import WIDE, render
from minigen.cli.entry import WAITING  # has threads wait as the command does

READ, DECODE, TRAIN = Case("pp", 128), Case("tg", 16, 128), Case("train", 64, batch=8)

Contestants = dict[str, Worker]


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Run this many other programs, each of which keeps a core busy."""
    endless = [sys.executable, "-c", "while True: pass"]
    programs = [subprocess.Popen(endless) for _ in range(loops)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


@contextmanager
def waiting(how: str) -> Iterator[None]:
    """Threads of the processes that are started in the block wait in this way."""
    before = dict(os.environ)
    for variable in (*WAITING, "OMP_WAIT_POLICY"):
        os.environ.pop(variable, None)
    if how.isdecimal():
        os.environ["GOMP_SPINCOUNT"] = how
    else:
        os.environ["OMP_WAIT_POLICY"] = how
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def start(
    stack: ExitStack, kind: type[Subject], fields: dict[str, Any], threads: int | None
) -> Worker:
    worker = Worker(kind(**fields, backend="torch", device="cpu", dtype="float32", threads=threads))
    stack.callback(worker.close)
    worker.ask("begin")
    worker.ask("load")
    return worker


def contestants(
    stack: ExitStack, kind: type[Subject], fields: dict[str, Any], waits: Sequence[str]
) -> Contestants:
    started = {
        "one thread": start(stack, kind, fields, 1),
        "minigen": start(stack, kind, fields, None),
    }
    for how in waits:
        with waiting(how):
            started[how] = start(stack, kind, fields, None)
    return started


def rates(workers: Contestants, case: Case, rounds: int) -> dict[str, float]:
    """Tokens per second of each, the median of the rounds."""
    samples: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            samples[name].append(case.batch * case.tokens / worker.ask("run", case).seconds)
    return {name: median(values) for name, values in samples.items()}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "model", nargs="?", help="a folder or hub id, in the place of a shape with random weights"
    )
    parser.add_argument("--shape", default="smollm2-135m")
    parser.add_argument("--train-shape", default="stories-3m")
    parser.add_argument("--loops", type=int, nargs="+", default=[0, 1, 2, 4], metavar="N")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--waits", nargs="*", default=[], metavar="HOW")
    args = parser.parse_args(argv)
    about = describe(["torch"])
    if args.model is None:
        model = shape_of(args.shape)
    else:
        model = model_of(args.model)
    rows: list[list[str]] = []
    with ExitStack() as stack:
        reading = contestants(stack, Subject, model, args.waits)
        training = contestants(stack, TrainedSubject, shape_of(args.train_shape), args.waits)
        tests = [(READ, reading), (DECODE, reading), (TRAIN, training)]
        for case, workers in tests:
            rates(workers, case, 2)  # the first runs, which start the kernels
        for loops in args.loops:
            for case, workers in tests:
                with busy(loops):
                    speeds = rates(workers, case, args.rounds)
                ratio = speeds["minigen"] / speeds["one thread"]
                cells = [f"{speed:.1f}" for speed in speeds.values()]
                rows.append([str(loops), case.name, *cells, f"{ratio:.2f}"])
    print(
        f"{about['cpu']}, {about['cores']} cores; {model['model']}, float32; "
        f"training: {args.train_shape} shape"
    )
    print(render(["other programs", "test", *reading, "/ one thread"], rows, WIDE, terminal=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
