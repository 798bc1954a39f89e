"""The checks of prompt files: by themselves with --check, and before every run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from minigen.errors import MinigenError

from ..display.words import counted

if TYPE_CHECKING:
    from minigen.evaluation.fewshot import Finding, PromptFile
    from minigen.tokenizer import Tokenizer

Tokens = tuple["Tokenizer", int | None]  # a model's tokenizer, and its context in tokens


def check_files(
    args: argparse.Namespace, as_asked: Callable[[PromptFile, argparse.Namespace], PromptFile]
) -> int:
    """Print every finding and the counts for each file; returns the exit code, 1 after an error.

    A file that cannot be read is reported on stderr, and the others are checked.
    """
    from minigen.checkpoints.opening import tokenizer_and_context
    from minigen.evaluation.fewshot import PromptError, load_prompt_file

    tokens = None
    if args.model is not None:
        tokens = tokenizer_and_context(args.model, offline=args.offline)
    failed = False
    for name in args.files:
        try:
            file = as_asked(load_prompt_file(name), args)
        except PromptError as error:
            print(f"minigen: {error}", file=sys.stderr)
            failed = True
            continue
        findings = findings_of(file, tokens)
        errors = sum(finding.level == "error" for finding in findings)
        if errors:
            failed = True
        for finding in findings:
            print(finding)
        content = f"{counted(len(file.examples), 'example')}, {counted(len(file.items), 'item')}"
        problems = f"{counted(errors, 'error')}, {counted(len(findings) - errors, 'warning')}"
        print(f"{name}: {content}: {problems}", flush=True)
    return 1 if failed else 0


def findings_of(file: PromptFile, tokens: Tokens | None) -> list[Finding]:
    """All findings about a file; with a tokenizer also those that depend on tokens."""
    from minigen.evaluation.fewshot import check

    if tokens is None:
        return check(file)
    tokenizer, context = tokens
    return check(file, tokenizer.encode, context, prefix_id=tokenizer.begin_id)


def refuse_errors(files: Sequence[PromptFile], tokens: Tokens | None) -> list[Finding]:
    """The warnings about all files. Raises MinigenError for the first error, with their number."""
    findings: list[Finding] = []
    for file in files:
        findings += findings_of(file, tokens)
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        message = f"{errors[0].where}: {errors[0].message}"
        if len(errors) > 1:
            message += f" ({counted(len(errors) - 1, 'more error')}: see --check)"
        raise MinigenError(message)
    return findings


def report_findings(findings: Sequence[Finding]) -> None:
    for finding in findings:
        print(f"minigen: warning: {finding.where}: {finding.message}", file=sys.stderr)
