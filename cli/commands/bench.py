"""`minigen bench`: tokens per second that a model reads and writes, and the machine's limit."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from minigen.errors import UsageError

from ..bench import training as bench_training
from ..bench.arguments import add_models, add_output, add_placement, add_tests
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
from ..bench.report import write
from ..bench.subjects import fields_of, on_every_backend
from ..display.progress import Bar
from ..parser import Parser

if TYPE_CHECKING:
    from minigen.benchmark.plan import Case
    from minigen.benchmark.session import Subject

DESCRIPTION = """
Tests are named as in llama-bench: pp512 reads a prompt of 512 tokens in one pass, tg128 decodes 128
tokens one by one; "@ d512" means after 512 tokens of context, "b8" eight rows at once, counted
together. Each model runs in a process of its own; they take turns, round by round, and the first
round is dropped. The limit is the most that memory or matrix products, measured in the same run,
allow; peak memory is that of the model's process.
"""


def add_arguments(parser: Parser) -> None:
    parser.description = f"{parser.description}. {' '.join(DESCRIPTION.split())}"
    add_models(parser)
    add_tests(parser)
    bench_training.add_arguments(parser)
    add_placement(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    if args.compare:
        return run_compare(args)
    if len(args.repetitions) > 1:
        raise UsageError("-r takes one number, for all tests")
    if args.cold and args.plot:
        raise UsageError("--plot does not go with --cold: drop one of them")
    bench_training.check(args)
    if args.plot:
        from minigen.evaluation.picture import require_matplotlib
        from minigen.files import check_writable

        require_matplotlib()
        check_writable(Path(args.plot))
    if args.train:
        subjects, cases = bench_training.training_of(args)
    else:
        subjects, cases = generation_of(args)
    if args.cold:
        return run_cold(args, subjects)
    return run_tests(args, subjects, cases)


def run_cold(args: argparse.Namespace, subjects: list[Subject]) -> int:
    """Time fresh processes."""
    from minigen.benchmark.cold import measure_cold

    with Bar("cold starts", "runs", refresh=1) as bar:
        about, starts = measure_cold(subjects, args.repetitions[0], bar.reach)
    write(args.output, {"machine": about}, starts, COLD, machine_lines(about), [COLD_NOTE])
    return 0


def run_tests(args: argparse.Namespace, subjects: list[Subject], cases: list[Case]) -> int:
    """Measure tokens per second."""
    from minigen.benchmark.run import measure

    with Bar("bench", "runs", refresh=1) as bar:
        about, results = measure(subjects, cases, args.repetitions[0], bar.reach)
    columns = result_columns(full=args.output == "md")
    lines = [*machine_lines(about), *model_lines(results)]
    notes = result_notes(about, results)
    write(args.output, {"machine": about}, results, columns, lines, notes)
    if args.plot:
        from minigen.benchmark.plot import plot

        title = f"{about['gpu'] or about['cpu']}, {about['cores']} cores"
        plot(results, Path(args.plot), title)
    return 0


def generation_of(args: argparse.Namespace) -> tuple[list[Subject], list[Case]]:
    """The models that read and write, and the tests."""
    from minigen.benchmark.plan import make_cases
    from minigen.benchmark.session import Subject

    lists = []
    for given, default in (
        (args.n_prompt, 512),
        (args.n_gen, 128),
        (args.n_depth, 0),
        (args.batch_size, 1),
    ):
        lists.append([default] if given is None else given)
    return on_every_backend(Subject, fields_of(args), args), make_cases(*lists)


def run_compare(args: argparse.Namespace) -> int:
    """Compare two files of results."""
    from minigen.benchmark.compare import compare, differences, read_results

    file_a, file_b = args.compare
    machine_a, results_a = read_results(Path(file_a))
    machine_b, results_b = read_results(Path(file_b))
    rows, unmatched = compare(results_a, results_b)
    notes = [*unmatched, *differences(machine_a, machine_b)]
    head = {"files": args.compare, "notes": notes}
    about = [f"A: {file_a}", f"B: {file_b}"]
    write(args.output, head, rows, COMPARED, about, [COMPARED_NOTE, *notes])
    return 0
