"""A run of `minigen prompt` on a model: checks, progress, resuming, and the report."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from ..display.progress import Bar
from ..display.tables import screen
from ..model_arguments import load_model
from .check import refuse_errors, report_findings
from .journal import Journal, ModelKey, content_hash
from .report import Report, answers, as_csv, as_json, footer, names
from .table import table

if TYPE_CHECKING:
    from minigen.evaluation.fewshot import PromptFile
    from minigen.evaluation.fewshot.result import FileResult, ItemResult
    from minigen.model import Model


class Session:
    """One call of the command that runs a model."""

    def __init__(
        self, args: argparse.Namespace, files: list[PromptFile], asked: list[PromptFile]
    ) -> None:
        """`files` as they are on disk, which the JSONL refers to, and `asked` as the flags want."""
        self.args, self.files = args, asked
        self.hashes = [content_hash(file) for file in files]
        self.names = names([file.path for file in files])
        self.reports: list[Report] = []

    def run(self) -> int:
        from minigen.checkpoints.fingerprint import fingerprint

        refuse_errors(self.files, None)  # the checks that need no model, before it is loaded
        start = time.perf_counter()
        model = load_model(self.args)
        self.model_name = self.args.model or model.folder.name
        if self.args.verbose:
            seconds = time.perf_counter() - start
            self.report_loaded(model, seconds)
        findings = refuse_errors(self.files, (model.needed_tokenizer, model.architecture.context))
        report_findings(findings)
        paths_by_hash: dict[str, list[str]] = {}
        for file, file_hash in zip(self.files, self.hashes, strict=True):
            paths_by_hash.setdefault(file_hash, []).append(str(file.path))
        weights = ""
        if self.args.jsonl:
            weights = fingerprint(model.folder)
        key = ModelKey(self.model_name, weights, model.precision)
        with Journal(self.args.jsonl, paths_by_hash, key) as journal:
            if len(journal):
                print(f"minigen: {journal.path} has {len(journal)} finished items", file=sys.stderr)
            try:
                for number in range(len(self.files)):
                    self.run_file(number, model, journal)
            except KeyboardInterrupt:
                self.finish()
                self.report_interrupted(journal)
                return 130
        self.finish()
        if self.args.verbose:
            memory = model.runner.ops.memory() / 2**20
            print(f"minigen: peak memory {memory:.0f} MiB", file=sys.stderr)
        return 0

    def report_loaded(self, model: Model, seconds: float) -> None:
        placed = f"{model.backend} ({model.device}, {model.precision})"
        line = f"minigen: {self.model_name} on {placed}, loaded in {seconds:.2f} s"
        print(line, file=sys.stderr)

    def run_file(self, number: int, model: Model, journal: Journal) -> None:
        from minigen.evaluation.fewshot.run import run_file

        file, name, file_hash = self.files[number], self.names[number], self.hashes[number]
        with Bar(name, "items") as bar:

            def on_item(shots: int, seed: int, item: ItemResult) -> None:
                journal.add(str(file.path), file_hash, shots, seed, item)
                bar.step()

            done = {}
            for key, item in journal.done[file_hash].items():
                # An item without the log-probabilities that are asked for now must be run again.
                if item.prompt_logprobs or not self.args.prompt_logprobs:
                    done[key] = item
            result = run_file(
                model,
                file,
                done=done,
                on_item=on_item,
                on_start=bar.start,
                prompt_logprobs=self.args.prompt_logprobs,
            )
        report = Report(replace(result, model=self.model_name), name, file.score.metric)
        self.write_rows(report)
        self.reports.append(report)

    def write_rows(self, report: Report) -> None:
        """Print a file's results, in the formats that need no other file."""
        if self.args.json:
            print(json.dumps(as_json(report.result), ensure_ascii=False), flush=True)
        elif self.args.csv:
            print(as_csv(report, heading=not self.reports), end="", flush=True)

    def finish(self) -> None:
        """Print the table and draw the plot of the files that are done."""
        if not self.reports:
            return
        results = [report.result for report in self.reports]
        if not (self.args.json or self.args.csv):
            self.print_tables(scored=any(is_scored(result) for result in results))
        if self.args.plot is not None:
            from minigen.evaluation.fewshot.plot import plot

            metrics = {report.metric for report in self.reports}
            score = metrics.pop() if len(metrics) == 1 else "score"
            plot(results, self.args.plot, [report.name for report in self.reports], score)

    def print_tables(self, scored: bool) -> None:
        """The answers, if they are asked for or not scored, and the scores."""
        width, terminal = screen()
        if self.args.answers or not scored:
            for report in self.reports:
                print(answers(report, len(self.reports) > 1, width, terminal))
        if scored:
            print(table(self.reports, width, terminal))
        print(footer(self.reports), end="", flush=True)

    def report_interrupted(self, journal: Journal) -> None:
        if journal.path is None:
            advice = "with --jsonl FILE a run can be continued after it is interrupted"
        else:
            count = f"{len(journal)} finished items"
            advice = f"{count} are in {journal.path}: the same command continues from there"
        print(f"minigen: interrupted; {advice}", file=sys.stderr)


def is_scored(result: FileResult) -> bool:
    """Whether any item has an answer to compare with."""
    for run in result.runs:
        for item in run.items:
            if item.correct is not None:
                return True
    return False
