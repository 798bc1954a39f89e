"""minigen and its peers at the same work, taking turns: tokens per second and minigen's ratios.

    python -m bench.peers [--quick] [--shape gpt2,...] [--dtype float32,...] [--peers llama.cpp,...]

bench/peers/README.md describes what is compared, and the settings of each peer. The last line on
stdout is the whole run as JSON.
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
from minigen.cli.bench.arguments import names
from minigen.cli.display.progress import Bar
from minigen.errors import MinigenError, UsageError
from minigen.files import replacing

from .peer import PeerSubject
from .report import as_markdown, draw
from .subjects import (
    BACKENDS,
    DTYPES,
    PEERS,
    SHAPES,
    TESTS,
    Skipped,
    available,
    groups,
    subjects_of,
)

RESULTS = Path(__file__).parents[1] / "results" / "peers"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    lists: dict[str, tuple[Sequence[str], str]] = {
        "shape": (SHAPES, "random weights in the shape of a known model"),
        "dtype": (DTYPES, "dtype of the weights"),
        "backend": (BACKENDS, "backends of minigen"),
        "peers": (tuple(PEERS), "libraries to compare with"),
        "tests": (
            tuple(TESTS),
            "512 tokens read, 128 decoded, 64 decoded for 16 rows; all but the first after 128",
        ),
    }
    for name, (known, text) in lists.items():
        parser.add_argument(
            f"--{name}",
            type=names(*known),
            default=list(known),
            metavar="NAME,...",
            help=f"{text}: {', '.join(known)} (default: all)",
        )
    parser.add_argument(
        "--threads",
        type=int,
        default=physical_cores(),
        metavar="N",
        help="threads of each contestant (default: one per core)",
    )
    parser.add_argument(
        "-r",
        "--repetitions",
        type=int,
        default=3,
        metavar="N",
        help="runs of each test (default 3)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a check that takes a few minutes: gpt2, one run of short tests",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="NAME",
        help="write NAME.md, NAME.json and NAME.png (default: bench/results/peers, or nothing "
        "with --quick)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / "minigen-peers",
        metavar="FOLDER",
        help="folder for llama.cpp's files, which take 6 GB (default: %(default)s)",
    )
    return parser


def main(words: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(words)
    try:
        if min(args.threads, args.repetitions) < 1:
            raise UsageError("--threads and -r must be 1 or more")
        if args.quick:
            args.repetitions, args.shape = 1, args.shape[:1]
        elif args.out is None:
            args.out = RESULTS
        if words is None:
            words = sys.argv[1:]
        run(args, shlex.join(["python", "-m", "bench.peers", *words]))
    except MinigenError as error:
        print(f"bench.peers: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def run(args: argparse.Namespace, command: str) -> None:
    for name in THREADS:  # the processes are started after this
        os.environ[name] = str(args.threads)
    here, skipped = available(args.peers)
    for skip in skipped:
        say(skip)
    about: dict[str, Any] = {}
    results: list[Result] = []
    start = time.perf_counter()
    contests = groups(args.backend, here, args.quick, slow_mlx=sys.platform != "darwin")
    for shape, dtype, group in product(args.shape, args.dtype, contests):
        subjects, without = subjects_of(shape, dtype, group, args.threads, args.cache)
        cases = [case for name, case in group.tests.items() if name in args.tests]
        try:
            if subjects and cases:
                machine, measurements = measured(
                    subjects, cases, args.repetitions, f"{shape} {dtype}", quiet=bool(results)
                )
                for result in measurements:  # the dtype of the weights, not that of the computation
                    results.append(replace(result, dtype=dtype))
                about = merged(about, machine)
        except MinigenError as error:  # continue with the others
            for subject in subjects:
                without.append(Skipped(subject.backend, str(error), f"{shape} shape", dtype))
        for skip in without:
            say(skip)
        skipped += without
    if not results:
        raise MinigenError("nothing was measured: see the reasons above")
    about |= {
        "threads": args.threads,
        "command": command,
        "minutes": round((time.perf_counter() - start) / 60, 1),
    }
    whole = {
        "machine": about,
        "results": [asdict(r) for r in results],
        "skipped": [asdict(s) for s in skipped],
    }
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
    """Prepare the files that the subjects need, and measure as `minigen bench` does."""
    for subject in subjects:
        if isinstance(subject, PeerSubject):
            subject.peer.prepare(subject)
    with Bar(name, "runs", refresh=1) as bar:
        return measure(subjects, cases, runs, bar.reach, quiet=quiet)


def say(skip: Skipped) -> None:
    name = skip.backend
    if skip.subject:
        name += f" ({skip.subject})"
    print(f"skipped: {name}: {skip.reason}", file=sys.stderr)


def merged(first: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    """One description of several groups: load before the first and after the last, all versions."""
    if not first:
        return then
    return first | {"versions": first["versions"] | then["versions"], "load_end": then["load_end"]}


def write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
