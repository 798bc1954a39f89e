"""`minigen bench`: how many tokens a second a model reads and writes here, and how many it could."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from minigen.backends.base import BITS, DTYPES, QUANTS
from minigen.errors import UsageError

from ..bench import training as bench_training
from ..bench.columns import (
    COLD,
    COLD_NOTE,
    COMPARED,
    COMPARED_NOTE,
    machine_lines,
    model_lines,
    result_columns,
    result_notes,
)
from ..bench.report import FORMATS, write
from ..bench.subjects import fields_of, on_every_backend
from ..display.progress import Bar
from ..model_arguments import THREADS
from ..parser import Parser

if TYPE_CHECKING:
    from minigen.benchmark.plan import Case
    from minigen.benchmark.session import Subject

BACKENDS = ("auto", "torch", "mlx")
DESCRIPTION = """
Tests are named as in llama-bench: pp512 reads a prompt of 512 tokens in one pass, tg128 decodes 128 tokens one by one;
"@ d512": after 512 tokens of context; "b8": eight rows at once, counted together. Each model has a process of its own;
they take turns, round by round, and the first round is dropped. The limit is what memory or matrix products, measured
in the same run, allow at most; peak memory is that of the model's process.
"""


def numbers(text: str) -> list[int]:
    """A comma list of whole numbers."""
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers such as 128,512")
    return [int(word) for word in words]


def at_least_one(text: str) -> list[int]:
    if 0 in numbers(text):
        raise argparse.ArgumentTypeError(f"{text!r}: it must be 1 or more")
    return numbers(text)


def names(*known: str) -> Callable[[str], list[str]]:
    """A comma list of words of which there are only these."""

    def read(text: str) -> list[str]:
        words = [word.strip() for word in text.split(",")]
        for word in words:
            if word not in known:
                raise argparse.ArgumentTypeError(f"unknown {word!r}: choose {', '.join(known)}")
        return words

    return read


def add_arguments(parser: Parser) -> None:
    from minigen.benchmark.shapes import SHAPES

    parser.description = f"{parser.description}. {' '.join(DESCRIPTION.split())}"
    text = "folders or hub ids (default: the model that ships, or the shapes)"
    parser.also(parser.add_argument("models", nargs="*", metavar="MODEL", help=text), "-m", "--model")
    parser.add_argument(
        "--shape", type=names(*SHAPES), action="extend", default=[], metavar="NAME,...",
        help=f"random weights in the shape of a known model: {', '.join(SHAPES)}",
    )  # fmt: skip
    group = parser.add_argument_group("what to measure (lists: every combination)")
    group.add_argument(
        "-p", "--n-prompt", type=numbers, metavar="N,...",
        help="tokens of a prompt that is read (default 512); 0 leaves the test out",
    )  # fmt: skip
    group.add_argument(
        "-n", "--n-gen", type=numbers, metavar="N,...",
        help="tokens that are decoded (default 128); 0 leaves the test out",
    )  # fmt: skip
    group.add_argument("-d", "--n-depth", type=numbers, metavar="N,...", help="tokens of context before (default 0)")
    group.add_argument("-b", "--batch-size", type=at_least_one, metavar="N,...", help="rows at once (default 1)")
    group.add_argument(
        "-r", "--repetitions", type=at_least_one, default=[5], metavar="N", help="runs of each test (default 5)"
    )
    group.add_argument(
        "--cold", action="store_true", help="instead: from the start of a fresh `generate` process to its first token"
    )
    bench_training.add_arguments(parser)
    group = parser.add_argument_group("where it runs")
    group.add_argument("--backend", type=names(*BACKENDS), default=["auto"], metavar="NAME,...", help="torch, mlx")
    group.add_argument("--device", help="cuda, cuda:1, cpu (torch); gpu, cpu (mlx)")
    group.add_argument(
        "--dtype", type=names(*DTYPES), default=[None], metavar="NAME,...",
        help=f"{', '.join(DTYPES)} (default: float32 on a CPU, the checkpoint's own on a GPU)",
    )  # fmt: skip
    group.add_argument(
        "--quant", type=names("none", *QUANTS), default=["none"], metavar="NAME,...",
        help="hold the weights in 8 or 4 bits, mixed (4, the embedding and the head in 8), or none: as they are stored",
    )  # fmt: skip
    group.add_argument(
        "--kv-bits", type=names("none", *map(str, BITS)), default=["none"], metavar="NAME,...",
        help="hold keys and values in 8 or 4 bits, or none: as the model computes",
    )  # fmt: skip
    group.add_argument("--threads", type=at_least_one, default=[None], metavar="N,...", help=THREADS)
    group.add_argument("--offline", action="store_true", help="never open a socket")
    group = parser.add_argument_group("what to show")
    group.add_argument("-o", "--output", choices=FORMATS, default="table", help="on stdout (default: table)")
    group.add_argument("--plot", metavar="FILE.png", help="also draw tokens a second against the limits")
    group.add_argument(
        "--compare", nargs=2, metavar=("A.json", "B.json"),
        help="measure nothing: by how much two results of -o json differ, and whether more than their runs do",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    if args.compare:
        return run_compare(args)
    if len(args.repetitions) > 1:
        raise UsageError("-r takes one number, for all tests")
    if args.cold and args.plot:
        raise UsageError("--plot draws tokens a second: drop it, or --cold")
    bench_training.check(args)
    if args.plot:
        from minigen.evaluation.picture import require_matplotlib
        from minigen.files import check_writable

        require_matplotlib()
        check_writable(Path(args.plot))
    subjects, cases = bench_training.training_of(args) if args.train else generation_of(args)
    with Bar("cold starts" if args.cold else "bench", "runs", refresh=1) as bar:
        if args.cold:
            from minigen.benchmark.cold import measure_cold

            about, starts = measure_cold(subjects, args.repetitions[0], bar.reach)
        else:
            from minigen.benchmark.run import measure

            about, results = measure(subjects, cases, args.repetitions[0], bar.reach)
    if args.cold:
        write(args.output, {"machine": about}, starts, COLD, machine_lines(about), [COLD_NOTE])
        return 0
    lines, notes = [*machine_lines(about), *model_lines(results)], result_notes(about, results)
    write(args.output, {"machine": about}, results, result_columns(args.output == "md"), lines, notes)
    if args.plot:
        from minigen.benchmark.plot import plot

        plot(results, Path(args.plot), f"{about['gpu'] or about['cpu']}, {about['cores']} cores")
    return 0


def generation_of(args: argparse.Namespace) -> tuple[list[Subject], list[Case]]:
    """The models that read and write, and the tests."""
    from minigen.benchmark.plan import make_cases
    from minigen.benchmark.session import Subject

    given = ((args.n_prompt, 512), (args.n_gen, 128), (args.n_depth, 0), (args.batch_size, 1))
    cases = make_cases(*([default] if lengths is None else lengths for lengths, default in given))
    return on_every_backend(Subject, fields_of(args), args), cases


def run_compare(args: argparse.Namespace) -> int:
    from minigen.benchmark.compare import compare, differences, read_results

    (machine_a, a), (machine_b, b) = (read_results(Path(name)) for name in args.compare)
    rows, alone = compare(a, b)
    notes = [*alone, *differences(machine_a, machine_b)]
    files = [f"{name}: {file}" for name, file in zip("AB", args.compare, strict=True)]
    write(args.output, {"files": args.compare, "notes": notes}, rows, COMPARED, files, [COMPARED_NOTE, *notes])
    return 0
