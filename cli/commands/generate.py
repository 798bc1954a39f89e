"""`minigen generate`: what follows a prompt, streamed as it comes."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from ..display.prompts import add_prompt_arguments, read_prompts
from ..display.report import as_json, logprob_table, statistics
from ..display.terminal import harmless
from ..display.warning_lines import held_warnings
from ..model_arguments import add_model_arguments, add_speculation_arguments, load_draft, load_model
from ..parser import Parser
from ..sampling_arguments import add_sampling_arguments, sampling_settings

if TYPE_CHECKING:
    from minigen.generation.options import Options
    from minigen.generation.text import TextRun
    from minigen.model import Model


def add_arguments(parser: Parser) -> None:
    add_model_arguments(parser)
    add_prompt_arguments(parser)
    parser.add_argument("--cache", metavar="FILE", help="go on from a prompt that `minigen cache build` has read")
    group = parser.add_argument_group("what to write")
    group.add_argument(
        "-n",
        "--max-tokens",
        type=int,
        help="new tokens at most (default: 256, or what the context has room for)",
    )
    group.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before this text; may be repeated"
    )
    group.add_argument("--num-samples", type=int, default=1, metavar="N", help="continuations of each prompt")
    group.add_argument("--ignore-eos", action="store_true", help="go on after an end-of-text token")
    group = add_sampling_arguments(parser)
    group.add_argument(
        "--beams", type=int, default=1, metavar="N", help="beam search of this width instead of sampling"
    )
    group.add_argument(
        "--length-penalty", type=float, default=0.6, metavar="ALPHA", help="of beam search (default 0.6)"
    )
    add_speculation_arguments(parser)
    group = parser.add_argument_group("what to show")
    group.add_argument("--echo", action="store_true", help="write the prompt in front of its continuation")
    group.add_argument(
        "--logprobs",
        type=int,
        nargs="?",
        const=0,
        metavar="K",
        help="each token's log-probability, and the K best",
    )
    group.add_argument("--json", action="store_true", help="one JSON object instead of text")
    group.add_argument("-v", "--verbose", action="store_true", help="backend, speed and memory, on stderr")


def options_of(args: argparse.Namespace) -> Options:
    """The run that the flags ask for."""
    from minigen.generation.options import Options

    own = {f.name: getattr(args, f.name) for f in fields(Options) if f.name != "sampling"}
    return Options.of(**sampling_settings(args), **{name: value for name, value in own.items() if value is not None})


def run(args: argparse.Namespace) -> int:
    began = time.perf_counter()
    options = options_of(args)  # what is wrong with the flags is said before anything is loaded
    prompts = read_prompts(args)
    model, draft = load_model(args), load_draft(args)
    loaded = time.perf_counter()
    if args.verbose:
        print(
            f"minigen: {args.model or model.folder.name} on {model.backend} ({model.device}, {model.precision}), "
            f"loaded in {loaded - began:.2f} s, seed {options.sampling.seed}",
            file=sys.stderr,
        )
    text_run = cached(model, args, prompts, options, draft) if args.cache else model.run(prompts, options, draft)
    interrupted = write_texts(text_run, args)
    if args.json:
        print(json.dumps(as_json(model, text_run, options, loaded - began), ensure_ascii=False), flush=True)
    elif args.logprobs is not None:
        print(logprob_table(model, text_run))
    if args.verbose:
        print(statistics(model, text_run, guessed=bool(args.speculate or args.draft)), file=sys.stderr)
    return 130 if interrupted else 0


def cached(
    model: Model, args: argparse.Namespace, prompts: list[str], options: Options, draft: Model | None
) -> TextRun:
    """The run that goes on from the state in a file."""
    from minigen.prompt_cache import cached_run

    found = cached_run(model, Path(args.cache), prompts, options, draft)
    if args.verbose:
        print(f"minigen: {len(found.shared.ids)} prompt tokens from {args.cache}", file=sys.stderr)
    return found.run


def write_texts(run: TextRun, args: argparse.Namespace) -> bool:
    """Runs it to its end or to Ctrl-C, and writes the texts in order, the first unfinished one as it comes.

    Returns whether it was interrupted; what was said until then has been written.
    """
    shown = Shown(run, quiet=args.json, echo=args.echo)
    try:
        shown.start()
        for _ in run:
            shown.update()
    except KeyboardInterrupt:
        return True
    finally:
        with shown.warnings:
            shown.finish()
    return False


class Shown:
    """What of a run is on the screen: the row that is being written, and how much of it."""

    def __init__(self, run: TextRun, *, quiet: bool, echo: bool) -> None:
        self.run, self.quiet, self.echo = run, quiet, echo
        self.row, self.written = -1, 0
        self.terminal, self.wrote = sys.stdout.isatty(), False
        self.warnings = ExitStack()

    def write(self, text: str) -> None:
        if text and not self.quiet:
            if not self.wrote:
                self.warnings.enter_context(held_warnings())
            self.wrote = True
            # A pipe gets the text as it is.
            sys.stdout.write(harmless(text) if self.terminal else text)
            sys.stdout.flush()

    def start(self) -> None:
        """Begins the next row, under a heading where there are several."""
        self.row, self.written = self.row + 1, 0
        if len(self.run.rows) > 1:
            self.write(f"{'' if self.row == 0 else chr(10)}==> {self.run.label(self.row)} <==\n")
        if self.echo:
            self.write(self.run.prompts[self.row])

    def update(self) -> None:
        """Writes what is new of the current row, and goes on to the next ones that are complete."""
        while True:
            text = self.run.texts[self.row].text
            self.write(text[self.written :])
            self.written = len(text)
            if not self.run.texts[self.row].done or self.row + 1 == len(self.run.rows):
                return
            self.write("\n")
            self.start()

    def finish(self) -> None:
        """Writes what there is of the rows that have not been shown, and ends the last line if anything was written."""
        self.update()
        while self.row + 1 < len(self.run.rows):
            self.write("\n")
            self.start()
            self.update()
        if self.wrote:
            self.write("\n")
