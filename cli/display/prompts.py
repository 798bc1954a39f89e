"""Where a command's prompts come from: -p, -f, or standard input."""

from __future__ import annotations

import argparse
import sys

from minigen.errors import UsageError

from .texts import display_name, read_text

PROMPT = (
    "a prompt; may be repeated, to run all prompts as one batch; "
    '"": start like a document, from the start token'
)
FILE = "a file that contains a prompt, or - for standard input; may be repeated"
SPECIAL = (
    "read special tokens in the prompt as such, not as text; "
    "a start token at the beginning is not doubled"
)


def add_prompt_arguments(parser: argparse.ArgumentParser) -> None:
    """Add -p, -f and --special."""
    group = parser.add_argument_group("the prompt (default: standard input)")
    group.add_argument("-p", "--prompt", action="append", default=[], metavar="TEXT", help=PROMPT)
    group.add_argument("-f", "--file", action="append", default=[], metavar="FILE", help=FILE)
    group.add_argument("--special", action="store_true", help=SPECIAL)


def read_prompts(args: argparse.Namespace) -> list[str]:
    """The prompts in the order -p, -f.

    A final line break of a file or of standard input is not part of the prompt. An empty text is a
    prompt if it was typed; an empty file or standard input is more likely a mistake.

    Raises UsageError for that and if there is no prompt, and MinigenError for a file that cannot be
    read as UTF-8.
    """
    prompts = list(args.prompt)
    for name in args.file:
        prompts.append(read_prompt(name))
    if not prompts:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("no prompt: give -p TEXT, -f FILE, or text on standard input")
        prompts.append(read_prompt("-"))
    return prompts


def read_prompt(name: str) -> str:
    """The prompt in a file."""
    text = read_text(name)
    if text.endswith("\n"):
        text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise UsageError(
            f'{display_name(name)} is empty: give some text, or -p "" to start like a document'
        )
    return text
