"""The `minigen` command. Subcommands are imported when called, so that `--help` stays fast.

Exit codes: 0; 1 for an error, 2 for bad usage, 130 after Ctrl-C, 141 if the reader of the output
closed the pipe.
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
    "chat": "chat with a model",
    "generate": "continue a prompt",
    "prompt": "run zero-, one- and few-shot prompts from files and score the answers",
    "score": "compute the perplexity and bits per byte of text files",
    "cache": "save the state of a prompt to disk, to reuse with generate --cache",
    "train": "train a model on text files",
    "convert": "convert a model to another dtype, quantize it, or merge a LoRA adapter into it",
    "bench": "measure tokens per second, and compare with the machine's limit",
    "tokenizer": "train a tokenizer on text files",
    "doctor": "show what this machine has and what minigen guarantees on it",
    "help": "show a page of the manual, or list the pages",
}

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def build_parser(command: str | None) -> Parser:
    """The parser with the arguments of `command`; the other commands are only listed."""
    parser = Parser(
        prog="minigen",
        description="Generate text with language models, and train them, on PyTorch and MLX.",
    )
    parser.add_argument("--version", action="version", version=f"minigen {__version__}")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=Parser
    )
    for name, summary in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, description=summary)
        if name == command:
            module = import_module(f".commands.{name}", __package__)
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            # A character that the terminal's encoding lacks must not end the run.
            stream.reconfigure(errors="replace")
    warn_on_stderr()
    try:
        code = run(sys.argv[1:] if argv is None else list(argv))
    except SystemExit:  # from argparse, which has printed its message
        if write_out(0):
            return 1
        raise
    return write_out(code)


def run(argv: list[str]) -> int:
    """Run a command, and report an error in one line."""
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
        if error.filename is not None:
            say(f"{error.filename}: {error.strerror}")
        elif error.errno in DISK_FULL:  # an error of a file would name it: this is standard output
            write_nowhere()
            say(f"cannot write to standard output: {error.strerror}")
        else:
            say(str(error))
        return 1
    except (MemoryError, RuntimeError) as error:
        from minigen.backends.faults import broken_device, out_of_memory

        if out_of_memory(error):
            say("out of memory: use a smaller model, a shorter prompt or fewer samples")
            return 1
        message = broken_device(error)
        if message is None:  # our own mistake
            raise
        say(message)
        return 1


def leave_threads() -> None:
    """End the process now if a library still works in one of our threads.

    That thread would otherwise keep the process alive, or crash when the interpreter ends.
    """
    learning = sys.modules.get("minigen.training.data.learning")
    if learning is not None and learning.still_learning():
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(130)


def write_out(code: int) -> int:
    """Flush standard output; returns the exit code, which is 1 instead of 0 if that fails."""
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
    """Redirect standard output to nowhere, so that it does not fail again when the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def dispatch(argv: list[str]) -> int:
    """Parse the words and run the command that they name."""
    positional = [word for word in argv if not word.startswith("-")]
    command = positional[0] if positional else None
    if command is None and {"--version", "--verbose"} <= set(argv):
        command = "doctor"
        rest = [word for word in argv if word not in ("--version", "--verbose")]
        argv = [command, *rest]
    args = build_parser(command).parse_args(argv)
    code: int = args.run(args)
    return code
