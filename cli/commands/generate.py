"""`minigen generate`: continue a prompt, and stream the text as it is generated."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from ..display.interrupts import noted_ctrl_c
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
    parser.add_argument(
        "--cache",
        metavar="FILE",
        help="continue a prompt whose state `minigen cache build` saved in FILE",
    )
    group = parser.add_argument_group("generation")
    group.add_argument(
        "-n",
        "--max-tokens",
        type=int,
        help="maximum number of new tokens (default: 256, or what fits into the context)",
    )
    group.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="stop before this text is generated; may be repeated",
    )
    group.add_argument(
        "--num-samples",
        type=int,
        default=1,
        metavar="N",
        help="number of continuations per prompt (default: 1)",
    )
    group.add_argument(
        "--ignore-eos", action="store_true", help="continue after an end-of-text token"
    )
    group = add_sampling_arguments(parser)
    group.add_argument(
        "--beams",
        type=int,
        default=1,
        metavar="N",
        help="beam search with N beams instead of sampling",
    )
    group.add_argument(
        "--length-penalty",
        type=float,
        default=0.6,
        metavar="ALPHA",
        help="length penalty of beam search (default: 0.6)",
    )
    add_speculation_arguments(parser)
    group = parser.add_argument_group("output")
    group.add_argument(
        "--echo", action="store_true", help="print the prompt before its continuation"
    )
    group.add_argument(
        "--logprobs",
        type=int,
        nargs="?",
        const=0,
        metavar="K",
        help="print the log-probability of each token and, with K, those of the K most likely",
    )
    group.add_argument(
        "--json", action="store_true", help="print one JSON object instead of the text"
    )
    group.add_argument(
        "-v", "--verbose", action="store_true", help="report backend, speed and memory on stderr"
    )


def options_of(args: argparse.Namespace) -> Options:
    """The options that the flags set."""
    from minigen.generation.options import Options

    settings = sampling_settings(args)
    for field in fields(Options):
        if field.name != "sampling":
            value = getattr(args, field.name)
            if value is not None:
                settings[field.name] = value
    return Options.of(**settings)


def run(args: argparse.Namespace) -> int:
    start = time.perf_counter()
    options = options_of(args)  # before anything is loaded, as it may raise an error
    prompts = read_prompts(args)
    model, draft = load_model(args), load_draft(args)
    load_s = time.perf_counter() - start
    if args.verbose:
        name = args.model or model.folder.name
        placed = f"{model.backend} ({model.device}, {model.precision})"
        seed = options.sampling.seed
        print(
            f"minigen: {name} on {placed}, loaded in {load_s:.2f} s, seed {seed}", file=sys.stderr
        )
    if args.cache:
        text_run = cached(model, args, prompts, options, draft)
    else:
        text_run = model.run(prompts, options, draft)
    interrupted = write_texts(text_run, args)
    if args.json:
        result = as_json(model, text_run, options, load_s)
        print(json.dumps(result, ensure_ascii=False), flush=True)
    elif args.logprobs is not None:
        print(logprob_table(model, text_run))
    if args.verbose:
        speculative = bool(args.speculate or args.draft)
        print(statistics(model, text_run, speculative), file=sys.stderr)
    return 130 if interrupted else 0


def cached(
    model: Model,
    args: argparse.Namespace,
    prompts: list[str],
    options: Options,
    draft: Model | None,
) -> TextRun:
    """The run that continues from the state in a file."""
    from minigen.prompt_cache import cached_run

    continued = cached_run(model, Path(args.cache), prompts, options, draft)
    if args.verbose:
        reused = len(continued.shared.ids)
        print(f"minigen: {reused} prompt tokens from {args.cache}", file=sys.stderr)
    return continued.run


def write_texts(run: TextRun, args: argparse.Namespace) -> bool:
    """Run to the end or to Ctrl-C, and write the texts in order, each as it grows.

    Returns whether it was interrupted; the text so far is written then too.
    """
    writer = TextWriter(run, quiet=args.json, echo=args.echo)
    try:
        with noted_ctrl_c() as ctrl_c:
            writer.start()
            for _ in run:
                writer.update()
                if ctrl_c.pressed:
                    return True
    except KeyboardInterrupt:
        return True
    finally:
        with writer.warnings:
            writer.finish()
    return False


class TextWriter:
    """Writes the texts of a run to stdout one after the other, each as it grows."""

    def __init__(self, run: TextRun, *, quiet: bool, echo: bool) -> None:
        self.run, self.quiet, self.echo = run, quiet, echo
        self.row = -1  # that is being written
        self.written = 0  # characters of it
        self.terminal = sys.stdout.isatty()
        self.wrote = False  # anything at all
        self.warnings = ExitStack()  # delays warnings from the first text on

    def write(self, text: str) -> None:
        if not text or self.quiet:
            return
        if not self.wrote:
            self.warnings.enter_context(held_warnings())
        self.wrote = True
        if self.terminal:  # a pipe gets the text as it is
            text = harmless(text)
        sys.stdout.write(text)
        sys.stdout.flush()

    def start(self) -> None:
        """Begin the next row, under a heading if there are several."""
        self.row += 1
        self.written = 0
        if len(self.run.rows) > 1:
            if self.row > 0:
                self.write("\n")
            self.write(f"==> {self.run.label(self.row)} <==\n")
        if self.echo:
            self.write(self.run.prompts[self.row])

    def update(self) -> None:
        """Write the new text of the current row, and of the next ones if it is complete."""
        while True:
            text = self.run.texts[self.row]
            self.write(text.text[self.written :])
            self.written = len(text.text)
            if not text.done or self.row + 1 == len(self.run.rows):
                return
            self.write("\n")
            self.start()

    def finish(self) -> None:
        """Write the rest of all rows, and end the last line if anything was written."""
        self.update()
        while self.row + 1 < len(self.run.rows):
            self.write("\n")
            self.start()
            self.update()
        if self.wrote:
            self.write("\n")
