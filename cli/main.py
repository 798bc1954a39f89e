"""The `minigen` command. Subcommands are imported when called, so that `--help` stays fast.

Exit codes: 0, 1 for an error, 2 for bad usage, 130 after Ctrl-C, 141 where the reader of its output left.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from minigen import __version__
from minigen.errors import MinigenError

from .display.warning_lines import warn_on_stderr
from .parser import Parser, say

COMMANDS = {
    "chat": "talk with a model",
    "generate": "write text that follows a prompt",
    "prompt": "answer the items of prompt files after no, one or a few examples, and score the answers",
    "score": "perplexity and bits per byte of text files",
    "cache": "the state of a prompt on disk, for generate --cache",
    "train": "make a model from text files",
    "convert": "write a model in another dtype, quantized, or with a LoRA adapter merged in",
    "bench": "tokens a second, against what the machine could do",
    "tokenizer": "make a tokenizer from texts, for a model of one's own",
    "doctor": "what this machine has, and what holds on it",
    "help": "show a page of the manual, or list the pages",
}

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # what a disk says that takes no more


def build_parser(command: str | None) -> Parser:
    """The parser, with the arguments of one command alone: the others are only named."""
    parser = Parser(
        prog="minigen",
        description="Text generation with one GPT-style decoder, and an LSTM baseline, on PyTorch and MLX.",
    )
    parser.add_argument("--version", action="version", version=f"minigen {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name, summary in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, description=summary)
        if name == command:
            module = import_module(f".commands.{name}", __package__)
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a character that the terminal's encoding lacks ends no run
    warn_on_stderr()
    try:
        code = run(sys.argv[1:] if argv is None else list(argv))
    except SystemExit:  # of argparse, which has said what there is to say
        if write_out(0):
            return 1
        raise
    return write_out(code)


def run(argv: list[str]) -> int:
    """Runs a command, and says in one line why it cannot go on."""
    try:
        return dispatch(argv)
    except MinigenError as error:
        say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        leave_threads()
        return 130
    except BrokenPipeError:  # the reader left, as `| head` does
        write_nowhere()
        return 141
    except OSError as error:
        if error.filename is None and error.errno in DISK:  # files are named: this is standard output
            write_nowhere()
            say(f"cannot write to standard output: {error.strerror}")
        else:
            say(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return 1
    except (MemoryError, RuntimeError) as error:
        from minigen.backends.faults import broken_device, out_of_memory

        short = "out of memory: use a smaller model, a shorter prompt or fewer samples"
        said = short if out_of_memory(error) else broken_device(error)
        if said is None:  # our own mistake
            raise
        say(said)
        return 1


def leave_threads() -> None:
    """Ends the process here where a library still works in a thread of ours: it would go on, or be torn to pieces."""
    learning = sys.modules.get("minigen.training.data.learning")
    if learning is not None and learning.still_learning():
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(130)


def write_out(code: int) -> int:
    """Writes what standard output still holds; the exit code, which is that of a failure where it cannot be written."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        write_nowhere()
        return 141
    except OSError as error:
        write_nowhere()
        say(f"cannot write to standard output: {error.strerror or error}")
        return code or 1
    return code


def write_nowhere() -> None:
    """Standard output takes no more: what it holds must not fail once more when the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def dispatch(argv: list[str]) -> int:
    """Parses the words and runs the command that they name."""
    command = next((word for word in argv if not word.startswith("-")), None)
    if command is None and {"--version", "--verbose"} <= set(argv):
        command = "doctor"
        argv = [command, *(word for word in argv if word not in ("--version", "--verbose"))]
    args = build_parser(command).parse_args(argv)
    code: int = args.run(args)
    return code
