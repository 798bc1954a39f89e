"""minigen and its peers at the same work, in one run, taking turns: tokens a second and minigen's ratio to each.

    python -m bench.peers [--quick] [--shape gpt2,...] [--dtype float32,...] [--peers llama.cpp,...] [--tests pp,tg]

What is compared and how each is set: bench/peers/README.md. The last line on stdout is the whole run as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

from minigen.backends.cores import physical_cores
from minigen.benchmark.plan import Case
from minigen.benchmark.run import Result, measure
from minigen.benchmark.session import Subject
from minigen.cli.commands.bench import names
from minigen.cli.display.progress import Bar
from minigen.errors import MinigenError, UsageError
from minigen.files import replacing

from .peer import PeerSubject
from .report import as_markdown, draw
from .subjects import BACKENDS, DTYPES, PEERS, SHAPES, TESTS, Skipped, available, groups, subjects_of

RESULTS = Path(__file__).parents[1] / "results" / "peers"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    lists: dict[str, tuple[Sequence[str], str]] = {
        "shape": (SHAPES, "random weights in the shape of a known model"),
        "dtype": (DTYPES, "of the weights"),
        "backend": (BACKENDS, "minigen's"),
        "peers": (tuple(PEERS), "whom to compare with"),
        "tests": (tuple(TESTS), "512 tokens read, 128 decoded, 64 decoded for 16 rows; all but the first after 128"),
    }
    for name, (known, text) in lists.items():
        parser.add_argument(
            f"--{name}", type=names(*known), default=list(known), metavar="NAME,...",
            help=f"{text}: {', '.join(known)} (default: all)",
        )  # fmt: skip
    parser.add_argument("--threads", type=int, default=physical_cores(), metavar="N", help="default: a core each")
    parser.add_argument("-r", "--repetitions", type=int, default=3, metavar="N", help="runs of each test (default 3)")
    parser.add_argument("--quick", action="store_true", help="a check in a few minutes: gpt2, one run of short tests")
    parser.add_argument(
        "--out", type=Path, metavar="NAME",
        help="write NAME.md, NAME.json and NAME.png (default: bench/results/peers; with --quick nothing)",
    )  # fmt: skip
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "minigen-peers", metavar="FOLDER",
        help="where llama.cpp's files are made and kept, 6 GB of them (default: %(default)s)",
    )  # fmt: skip
    return parser


def main(words: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(words)
    try:
        if min(args.threads, args.repetitions) < 1:
            raise UsageError("--threads and -r are 1 or more")
        if args.quick:
            args.repetitions, args.shape = 1, args.shape[:1]
        else:
            args.out = args.out or RESULTS
        run(args, shlex.join(["python", "-m", "bench.peers", *(sys.argv[1:] if words is None else words)]))
    except MinigenError as error:
        print(f"bench.peers: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


def run(args: argparse.Namespace, command: str) -> None:
    for name in THREADS:  # the processes are started after this
        os.environ[name] = str(args.threads)
    here, skipped = available(args.peers)
    for skip in skipped:
        say(skip)
    about: dict[str, Any] = {}
    results: list[Result] = []
    began = time.perf_counter()
    rounds = [(shape, dtype) for shape in args.shape for dtype in args.dtype]
    for (shape, dtype), group in product(rounds, groups(args.backend, here, args.quick, sys.platform != "darwin")):
        subjects, without = subjects_of(shape, dtype, group, args.threads, args.cache)
        cases = [case for name, case in group.tests.items() if name in args.tests]
        try:
            if subjects and cases:
                machine, found = measured(subjects, cases, args.repetitions, f"{shape} {dtype}", quiet=bool(results))
                results += [replace(r, dtype=dtype) for r in found]  # what the weights have, whatever is computed in
                about = merged(about, machine)
        except MinigenError as error:  # the others are still worth their time
            names = (subject.backend for subject in subjects)
            without += [Skipped(name, str(error), f"{shape} shape", dtype) for name in names]
        for skip in without:
            say(skip)
        skipped += without
    if not results:
        raise MinigenError("nothing was measured: see the reasons above")
    about |= {"threads": args.threads, "command": command, "minutes": round((time.perf_counter() - began) / 60, 1)}
    whole = {"machine": about, "results": [asdict(r) for r in results], "skipped": [asdict(s) for s in skipped]}
    text = as_markdown(about, results, skipped)
    print(text)
    if args.out:
        write(args.out.with_suffix(".md"), text)
        write(args.out.with_suffix(".json"), json.dumps(whole) + "\n")
        draw(results, args.out.with_suffix(".png"), about)
    print(json.dumps(whole))


def measured(
    subjects: Sequence[Subject], cases: Sequence[Case], runs: int, name: str, *, quiet: bool
) -> tuple[dict[str, Any], list[Result]]:
    """The files that they need, and then what `minigen bench` does."""
    for subject in subjects:
        if isinstance(subject, PeerSubject):
            subject.peer.prepare(subject)
    with Bar(name, "runs", refresh=1) as bar:
        return measure(subjects, cases, runs, bar.reach, quiet=quiet)


def say(skip: Skipped) -> None:
    where = ", ".join(part for part in (skip.model, skip.dtype) if part)
    print(f"skipped: {skip.backend}{f' ({where})' if where else ''}: {skip.reason}", file=sys.stderr)


def merged(first: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    """One description of several groups: the load before the first and after the last, every version."""
    if not first:
        return then
    return first | {"versions": first["versions"] | then["versions"], "load_end": then["load_end"]}


def write(path: Path, text: str) -> None:
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
