"""A run of `minigen prompt` on a model: checked, resumed, shown while it runs, and reported."""

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
from .report import Report, answers, as_csv, as_json, footer, names, table

if TYPE_CHECKING:
    from minigen.evaluation.fewshot import PromptFile
    from minigen.evaluation.fewshot.result import FileResult, ItemResult
    from minigen.model import Model


class Session:
    """One call of the command that runs a model."""

    def __init__(self, args: argparse.Namespace, files: list[PromptFile], asked: list[PromptFile]) -> None:
        """`files` as they are on disk, which is what the JSONL keeps, and `asked` as the flags change them."""
        self.args, self.files = args, asked
        self.hashes = [content_hash(file) for file in files]
        self.names = names([file.path for file in files])
        self.reports: list[Report] = []

    def run(self) -> int:
        from minigen.checkpoints.fingerprint import fingerprint

        refuse_errors(self.files, None)  # what needs no model is said before one is loaded
        began = time.perf_counter()
        model = load_model(self.args)
        self.model_name = self.args.model or model.folder.name
        if self.args.verbose:
            where = f"{model.backend} ({model.device}, {model.precision})"
            seconds = time.perf_counter() - began
            print(f"minigen: {self.model_name} on {where}, loaded in {seconds:.2f} s", file=sys.stderr)
        findings = refuse_errors(self.files, (model.needed_tokenizer, model.architecture.context))
        report_findings(findings)
        by_hash: dict[str, list[str]] = {}
        for file, found in zip(self.files, self.hashes, strict=True):
            by_hash.setdefault(found, []).append(str(file.path))
        key = ModelKey(self.model_name, fingerprint(model.folder) if self.args.jsonl else "", model.precision)
        with Journal(self.args.jsonl, by_hash, key) as journal:
            if len(journal):
                print(f"minigen: {journal.path} has {len(journal)} finished items", file=sys.stderr)
            try:
                for number in range(len(self.files)):
                    self.run_file(number, model, journal)
            except KeyboardInterrupt:
                self.finish()
                self.say_interrupted(journal)
                return 130
        self.finish()
        if self.args.verbose:
            print(f"minigen: peak memory {model.runner.ops.memory() / 2**20:.0f} MiB", file=sys.stderr)
        return 0

    def run_file(self, number: int, model: Model, journal: Journal) -> None:
        from minigen.evaluation.fewshot.run import run_file

        file, name, found = self.files[number], self.names[number], self.hashes[number]
        with Bar(name, "items") as bar:

            def on_item(shots: int, seed: int, item: ItemResult) -> None:
                journal.add(str(file.path), found, shots, seed, item)
                bar.step()

            # An item that lacks what is asked for now is no finished one.
            asked = self.args.prompt_logprobs
            done = {key: item for key, item in journal.done[found].items() if item.prompt_logprobs or not asked}
            result = run_file(
                model,
                file,
                done=done,
                on_item=on_item,
                on_start=bar.start,
                prompt_logprobs=asked,
            )
        report = Report(replace(result, model=self.model_name), name, file.score.metric)
        self.write_rows(report)
        self.reports.append(report)

    def write_rows(self, report: Report) -> None:
        """What can be written before the other files are done."""
        if self.args.json:
            print(json.dumps(as_json(report.result), ensure_ascii=False), flush=True)
        elif self.args.csv:
            print(as_csv(report, heading=not self.reports), end="", flush=True)

    def finish(self) -> None:
        """The table and the plot of the files that are done."""
        if not self.reports:
            return
        results: list[FileResult] = [report.result for report in self.reports]
        if not (self.args.json or self.args.csv):
            width, terminal = screen()
            scored = any(item.correct is not None for r in results for run in r.runs for item in run.items)
            if self.args.answers or not scored:
                for report in self.reports:
                    print(answers(report, len(self.reports) > 1, width, terminal))
            if scored:
                print(table(self.reports, width, terminal))
            print(footer(self.reports), end="", flush=True)
        if self.args.plot is not None:
            from minigen.evaluation.fewshot.plot import plot

            metrics = {report.metric for report in self.reports}
            named = [report.name for report in self.reports]
            plot(results, self.args.plot, named, metrics.pop() if len(metrics) == 1 else "score")

    def say_interrupted(self, journal: Journal) -> None:
        if journal.path is None:
            advice = "with --jsonl FILE a run can go on where it was interrupted"
        else:
            advice = f"{len(journal)} finished items are in {journal.path}: the same command goes on from there"
        print(f"minigen: interrupted; {advice}", file=sys.stderr)
