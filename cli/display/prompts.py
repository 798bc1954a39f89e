"""Where a command's prompts come from: -p, -f, or standard input."""

from __future__ import annotations

import argparse
import sys

from minigen.errors import UsageError

from .texts import read_text, shown

EMPTY = 'may be repeated: one batch; "" writes from the start token, as a document begins'
SPECIAL = "let special tokens written in the prompt count as such; a start token that it begins with is not doubled"


def add_prompt_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the prompt (default: standard input)")
    group.add_argument("-p", "--prompt", action="append", default=[], metavar="TEXT", help=EMPTY)
    group.add_argument(
        "-f",
        "--file",
        action="append",
        default=[],
        metavar="FILE",
        help="a file that holds a prompt, - for standard input; may be repeated",
    )
    group.add_argument("--special", action="store_true", help=SPECIAL)


def read_prompts(args: argparse.Namespace) -> list[str]:
    """The prompts in the order -p, -f. A final line break of a file or of stdin is not part of the prompt.

    An empty text is a prompt where it was typed; a file or standard input that is empty is rather a mistake. Raises
    UsageError for that and where there is no prompt, MinigenError for a file that cannot be read as UTF-8.
    """
    prompts = [*args.prompt, *map(read_prompt, args.file)]
    if not prompts:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("no prompt: give -p TEXT, -f FILE, or text on standard input")
        prompts = [read_prompt("-")]
    return prompts


def read_prompt(name: str) -> str:
    text = read_text(name)
    text = text.removesuffix("\r\n") if text.endswith("\r\n") else text.removesuffix("\n")
    if not text:
        raise UsageError(f'{shown(name)} is empty: give some text, or -p "" to write from where a document begins')
    return text
