"""`minigen prompt`: the items of prompt files, after no, one or a few examples, answered and scored."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from minigen.errors import UsageError

from ..display.terminal import harmless
from ..model_arguments import add_model_arguments
from ..parser import Parser
from ..prompt.check import check_files
from ..prompt.report import label, names

if TYPE_CHECKING:
    from minigen.evaluation.fewshot import PromptFile

EPILOG = """\
A prompt file (NAME.prompt.toml) has a description, examples and items. `minigen help prompts` describes it, and
minigen/evaluation/fewshot/examples has some to start from. For example:

  minigen prompt task.prompt.toml --print         the prompt of its first item, for each number of shots
  minigen prompt task.prompt.toml --check         what is wrong with it
  minigen prompt task.prompt.toml -m MODEL        a table:

      shots  items       accuracy  chance   worst - best  seeds
          0    100  0.520 ± 0.050   0.500
          4    100  0.713 ± 0.039   0.500  0.680 - 0.750      3

      "±" is the standard error over the items; worst and best are those of the seeds, which choose the examples.

  minigen prompt *.prompt.toml -m MODEL --jsonl run.jsonl --plot run.png
                                                  a suite; the same command goes on where it was interrupted
  minigen prompt task.prompt.toml -m MODEL --json | jq '.results[] | [.shots, .seed, .accuracy, .stderr]'
"""


def add_arguments(parser: Parser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    text = "a prompt file; several make a suite with one table"
    parser.also(parser.add_argument("files", nargs="+", metavar="FILE", help=text), "-f", "--file")
    add_model_arguments(parser, positional=False)
    group = parser.add_argument_group("what to run")
    group.add_argument(
        "--shots", type=numbers, metavar="N,N", help="numbers of examples, as in 0,1,4 (default: the file's)"
    )
    group.add_argument(
        "--seeds", type=numbers, metavar="N,N", help="seeds that choose the examples (default: the file's)"
    )
    group.add_argument("--limit", type=positive, metavar="N", help="the first N items of each file alone")
    group = parser.add_argument_group("what to write (default: a table)")
    only = group.add_mutually_exclusive_group()
    only.add_argument("--check", action="store_true", help="what is wrong with the files; no weights are read")
    only.add_argument("--print", action="store_true", help="the prompts themselves; no model is needed")
    only.add_argument("--json", action="store_true", help="one JSON object a file, each on a line")
    only.add_argument("--csv", action="store_true", help="a row for each number of shots and seed")
    group.add_argument("--item", type=which, default=1, metavar="K", help="of --print: which item, or all (default 1)")
    group.add_argument("--answers", action="store_true", help="every answer too; always so where nothing is scored")
    group.add_argument(
        "--jsonl", type=Path, metavar="FILE", help="add items as they finish; those it has are not run again"
    )
    group.add_argument(
        "--prompt-logprobs", action="store_true", help="in --json and --jsonl, each token of an item's prompt as well"
    )
    group.add_argument("--plot", type=Path, metavar="FILE.png", help="a picture of accuracy against shots")
    group.add_argument("-v", "--verbose", action="store_true", help="backend, speed and memory, on stderr")


def numbers(text: str) -> tuple[int, ...]:
    found = tuple(int(part) for part in text.split(",") if part.isascii() and part.isdecimal())
    if len(found) != len(text.split(",")) or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of different whole numbers, as in 0,1,4")
    return found


def positive(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def which(text: str) -> int | None:
    return None if text == "all" else positive(text)


def run(args: argparse.Namespace) -> int:
    twice = next((name for name in args.files if args.files.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice} is given twice: name each file once")
    if args.check:
        return check_files(args, as_asked)
    from minigen.evaluation.fewshot import load_prompt_file

    files = [load_prompt_file(name) for name in args.files]
    asked = [as_asked(file, args) for file in files]
    if args.print:
        sys.stdout.writelines(prompts(asked, args.item))
        return 0
    if args.plot is not None:
        prepare_plot(args.plot)
    from ..prompt.run import Session

    return Session(args, files, asked).run()


def as_asked(file: PromptFile, args: argparse.Namespace) -> PromptFile:
    """The file with what the flags say instead."""
    from minigen.evaluation.fewshot.library import with_settings

    return with_settings(file, args.shots, args.seeds, args.limit)


def prompts(files: list[PromptFile], wanted: int | None) -> Iterator[str]:
    """The text of each prompt, exactly, and a line's end; under headings where there are several."""
    from minigen.evaluation.fewshot import render_text
    from minigen.evaluation.fewshot.run import settings

    asked: list[tuple[str, str]] = []
    for file, name in zip(files, names([file.path for file in files]), strict=True):
        if wanted is not None and wanted > len(file.items):
            raise UsageError(f"--item is {wanted}, and {file.path} has {len(file.items)} items: give one of them")
        several = len(file.shots.seeds) > 1
        for n, seed in settings(file):
            for item in range(1, len(file.items) + 1) if wanted is None else [wanted]:
                heading = label(name if len(files) > 1 else "", n, seed if several else None, item)
                asked.append((heading, render_text(file, n, seed, item - 1)))
    terminal = sys.stdout.isatty()
    for number, (heading, text) in enumerate(asked):
        if len(asked) > 1:
            yield f"{chr(10) if number else ''}==> {heading} <==\n"
        yield (harmless(text) if terminal else text) + "\n"


def prepare_plot(path: Path) -> None:
    """What can be wrong with --plot is said before the run."""
    from minigen.evaluation.picture import require_matplotlib
    from minigen.files import check_writable

    require_matplotlib()
    if path.suffix.lower() != ".png":
        raise UsageError(f"--plot is {path}: it must end in .png")
    check_writable(path)
