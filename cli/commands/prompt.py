"""`minigen prompt`: run zero-, one- and few-shot prompts from files, and score the answers."""

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
A prompt file (NAME.prompt.toml) has a description, examples and items. `minigen help prompts`
describes its format; minigen/evaluation/fewshot/examples has some to start from. For example:

  minigen prompt task.prompt.toml --print         print the prompt of its first item, for each
                                                  number of shots
  minigen prompt task.prompt.toml --check         report what is wrong with it
  minigen prompt task.prompt.toml -m MODEL        print a table:

      shots  items       accuracy  chance   worst - best  seeds
          0    100  0.520 ± 0.050   0.500
          4    100  0.713 ± 0.039   0.500  0.680 - 0.750      3

      "±" is the standard error over the items; "worst - best" is over the seeds, which choose the
      examples.

  minigen prompt *.prompt.toml -m MODEL --jsonl run.jsonl --plot run.png
                                                  run several files; the same command continues an
                                                  interrupted run
  minigen prompt task.prompt.toml -m MODEL --json | jq '.results[] | [.shots, .seed, .accuracy]'
"""


def add_arguments(parser: Parser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    text = "a prompt file; several are reported in one table"
    parser.also(parser.add_argument("files", nargs="+", metavar="FILE", help=text), "-f", "--file")
    add_model_arguments(parser, positional=False)
    group = parser.add_argument_group("what to run")
    group.add_argument(
        "--shots",
        type=int_list,
        metavar="N,N",
        help="numbers of examples, such as 0,1,4 (default: those in the file)",
    )
    group.add_argument(
        "--seeds",
        type=int_list,
        metavar="N,N",
        help="seeds that choose the examples (default: those in the file)",
    )
    group.add_argument(
        "--limit", type=positive, metavar="N", help="only the first N items of each file"
    )
    add_output(parser)


def add_output(parser: Parser) -> None:
    group = parser.add_argument_group("output (default: a table)")
    only = group.add_mutually_exclusive_group()
    only.add_argument(
        "--check",
        action="store_true",
        help="check the files and report what is wrong with them (loads no weights)",
    )
    only.add_argument(
        "--print", action="store_true", help="print the prompts themselves (needs no model)"
    )
    only.add_argument("--json", action="store_true", help="print one JSON object per file")
    only.add_argument(
        "--csv", action="store_true", help="print one CSV row per number of shots and seed"
    )
    group.add_argument(
        "--item",
        type=item_number,
        default=1,
        metavar="K",
        help="with --print: the number of the item, or all (default: 1)",
    )
    group.add_argument(
        "--answers",
        action="store_true",
        help="also print every answer (always, if nothing is scored)",
    )
    group.add_argument(
        "--jsonl",
        type=Path,
        metavar="FILE",
        help="append each item to FILE when it is finished, and skip those that FILE has already",
    )
    group.add_argument(
        "--prompt-logprobs",
        action="store_true",
        help="with --json and --jsonl: also write each token of an item's prompt",
    )
    group.add_argument(
        "--plot", type=Path, metavar="FILE.png", help="plot the accuracy against the shots"
    )
    group.add_argument(
        "-v", "--verbose", action="store_true", help="report backend, speed and memory on stderr"
    )


def is_whole(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def int_list(text: str) -> tuple[int, ...]:
    """A comma-separated list of different whole numbers."""
    numbers: list[int] = []
    for word in text.split(","):
        if not is_whole(word) or int(word) in numbers:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a list of different whole numbers such as 0,1,4"
            )
        numbers.append(int(word))
    return tuple(numbers)


def positive(text: str) -> int:
    """A whole number >= 1."""
    if not is_whole(text) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number >= 1")
    return int(text)


def item_number(text: str) -> int | None:
    """The value of --item; None stands for all."""
    return None if text == "all" else positive(text)


def run(args: argparse.Namespace) -> int:
    for name in args.files:
        if args.files.count(name) > 1:
            raise UsageError(f"{name} is given twice: name each file once")
    if args.check:
        return check_files(args, as_asked)
    from minigen.evaluation.fewshot import load_prompt_file

    files = [load_prompt_file(name) for name in args.files]
    asked = [as_asked(file, args) for file in files]
    if args.print:
        sys.stdout.writelines(prompt_texts(asked, args.item))
        return 0
    if args.plot is not None:
        check_plot(args.plot)
    from ..prompt.run import Session

    return Session(args, files, asked).run()


def as_asked(file: PromptFile, args: argparse.Namespace) -> PromptFile:
    """The file with the shots, seeds and items that the flags ask for."""
    from minigen.evaluation.fewshot.library import with_settings

    return with_settings(file, args.shots, args.seeds, args.limit)


def prompt_texts(files: list[PromptFile], item: int | None) -> Iterator[str]:
    """The exact text of each prompt and a line break; under headings if there are several.

    `item` is the number of the item; None stands for all.
    """
    prompts = []
    short_names = names([file.path for file in files])
    for file, name in zip(files, short_names, strict=True):
        if len(files) == 1:
            name = ""
        prompts += prompts_of(file, name, item)
    terminal = sys.stdout.isatty()
    for number, (heading, text) in enumerate(prompts):
        if number > 0:
            yield "\n"
        if len(prompts) > 1:
            yield f"==> {heading} <==\n"
        if terminal:
            text = harmless(text)
        yield text + "\n"


def prompts_of(file: PromptFile, name: str, item: int | None) -> list[tuple[str, str]]:
    """Heading and text of a file's prompts, for each number of shots and seed."""
    from minigen.evaluation.fewshot import render_text
    from minigen.evaluation.fewshot.run import settings

    count = len(file.items)
    if item is not None and item > count:
        raise UsageError(f"--item is {item}, but {file.path} has only {count} items")
    numbers = range(1, count + 1) if item is None else [item]
    prompts = []
    for shots, seed in settings(file):
        seed_shown = seed if len(file.shots.seeds) > 1 else None
        for number in numbers:
            heading = label(name, shots, seed_shown, number)
            prompts.append((heading, render_text(file, shots, seed, number - 1)))
    return prompts


def check_plot(path: Path) -> None:
    """Report what is wrong with --plot before the run."""
    from minigen.evaluation.picture import require_matplotlib
    from minigen.files import check_writable

    require_matplotlib()
    if path.suffix.lower() != ".png":
        raise UsageError(f"--plot is {path}: it must end in .png")
    check_writable(path)
