"""Reads a `*.prompt.toml` into a checked PromptFile; `minigen help prompts` describes it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any, cast, get_args

from minigen.errors import UsageError
from minigen.evaluation.fewshot.data import Row, read_rows
from minigen.evaluation.fewshot.file import (
    Item,
    Metric,
    Normalize,
    Pick,
    PromptError,
    PromptFile,
    Score,
    Shots,
)
from minigen.evaluation.fewshot.rows import NAMES, Rules, to_example, to_item
from minigen.evaluation.fewshot.source import Source, Table, short
from minigen.evaluation.fewshot.template import field_names
from minigen.generation.options import Options
from minigen.reading import is_id
from minigen.sampling import SETTINGS
from minigen.sampling.uniforms import LIMIT

TOP = (
    *("format", "description", "template", "answer_sep", "block_sep"),
    *("examples", "examples_file", "examples_skip", "examples_limit"),
    *("items", "items_file", "items_skip", "items_limit"),
    *("choices", "labels", "generate", "shots", "score"),
)
SHOTS = tuple(f.name for f in fields(Shots))
SCORE = tuple(f.name for f in fields(Score))
# Prompts run as one batch, which cannot speculate.
NOT_HERE = ("sampling", "speculate", "draft_tokens")
GENERATE = ("temp", *(f.name for f in fields(Options) if f.name not in NOT_HERE), *SETTINGS)
# Where a key belongs that stands in the wrong table.
_IN_A_TABLE = {
    **dict.fromkeys(SHOTS, "in [shots]"),
    **dict.fromkeys(SCORE, "in [score]"),
    **dict.fromkeys(GENERATE, "in [generate]"),
}
_AT_THE_TOP = dict.fromkeys(TOP, "at the top, before the first [table]")


_SEE_HELP = "see minigen generate --help"


def load_prompt_file(path: str | os.PathLike[str]) -> PromptFile:
    """Reads a prompt file and the data files that it names.

    Raises PromptError for the first mistake: one line, `FILE:LINE: key: what is wrong; what to do`.
    """
    source = Source(Path(path))
    top = Table(source, (), source.values)
    top.only(TOP, _IN_A_TABLE)
    if "format" not in top.values:
        raise top.error("format", "is missing; begin the file with format = 1")
    if type(top.values["format"]) is not int or top.values["format"] != 1:
        raise top.error("format", f"is {short(top.values['format'])}; it must be 1")
    template = top.text("template", "{input}")
    try:
        names = field_names(template)
    except ValueError as error:
        raise top.error("template", str(error)) from None
    rules = Rules(names, top.text("answer_sep", " "), _choices(top), _labels(top))
    shots = _shots(top.table("shots"))
    generate = _generate(top.table("generate"))
    items = tuple(to_item(row, rules) for row in _rows(top, "items", rules))
    return PromptFile(
        path=source.path,
        description=top.text("description", ""),
        template=template,
        answer_sep=rules.answer_sep,
        block_sep=top.text("block_sep", "\n"),
        examples=tuple(to_example(row, rules) for row in _rows(top, "examples", rules)),
        items=items,
        choices=rules.choices,
        generate=generate,
        shots=shots,
        score=_score(top.table("score"), items),
    )


def _choices(top: Table) -> tuple[str, ...]:
    choices = top.texts("choices")
    if "choices" in top.values and len(choices) < 2:
        raise top.error("choices", f"is {short(list(choices))}; there must be at least two")
    return choices


def _labels(top: Table) -> dict[str, str]:
    labels = top.table("labels")
    if "labels" in top.values and not labels.values:
        raise top.error("labels", "is empty; give the word of each label, or drop the key")
    return {name: labels.text(name, "") for name in labels.values}


def _shots(table: Table) -> Shots:
    table.only(SHOTS, _AT_THE_TOP)
    pick = cast(Pick, table.one_of("pick", get_args(Pick), Shots.pick))
    counts = table.wholes("n", None, Shots.n)
    return Shots(counts, pick, table.wholes("seeds", LIMIT, Shots.seeds))


def _generate(table: Table) -> dict[str, Any]:
    table.only(GENERATE, _AT_THE_TOP)
    settings: dict[str, Any] = {}
    for key, value in table.values.items():
        name = "temperature" if key == "temp" else key
        if name in settings:
            raise table.error(key, "and temperature are the same setting; keep one of them")
        if name == "logit_bias" and isinstance(value, dict):
            value = _with_whole_ids(value)
        settings[name] = value
        try:
            Options.of(**{name: value})
        except UsageError as error:
            raise table.error(key, f"{error}; {_SEE_HELP}") from None
    if "beams" not in settings:
        settings.setdefault("temperature", 0)
    try:
        Options.of(**settings)
    except UsageError as error:
        raise table.source.error(table.key, f"{error}; {_SEE_HELP}") from None
    return settings


def _with_whole_ids(biases: dict[str, Any]) -> dict[str | int, Any]:
    """The biases by token id: a key of TOML is always a string, so ids are turned into numbers."""
    result: dict[str | int, Any] = {}
    for token, bias in biases.items():
        if is_id(token):
            result[int(token)] = bias
        else:
            result[token] = bias
    return result


def _score(table: Table, items: tuple[Item, ...]) -> Score:
    table.only(SCORE, _AT_THE_TOP)
    metric = _metric(table, items)
    normalize = cast(Normalize, table.one_of("normalize", get_args(Normalize), Score.normalize))
    calibrate = table.texts("calibrate")
    if metric != "accuracy":
        problem = f"is for choices, but the metric is {metric}; drop it, or give choices"
        if normalize != "none":
            raise table.error("normalize", problem)
        if calibrate:
            raise table.error("calibrate", problem)
    if calibrate and any(item.contexts for item in items):
        raise table.error(
            "calibrate", "cannot be used with context_options, which share one answer; drop it"
        )
    return Score(normalize, metric, calibrate, table.text("uncond_context", Score.uncond_context))


def _metric(table: Table, items: tuple[Item, ...]) -> Metric:
    """The metric of [score]; by default accuracy if the items have choices, else exact."""
    scored = [bool(item.choices or item.contexts) for item in items]
    if "metric" not in table.values and any(scored) and not all(scored):
        where = items[scored.index(False)].where
        raise PromptError(
            f"{where}: choices: is missing, but other items have it; give it to all or to none"
        )
    default = "accuracy" if scored[0] else "exact"
    metric = cast(Metric, table.one_of("metric", get_args(Metric), default))
    if metric == "accuracy":
        if not all(scored):
            where = items[scored.index(False)].where
            raise table.error(
                "metric",
                f"is accuracy, but the item at {where} has no choices; give choices, or use exact",
            )
        return metric
    for item in items:
        if item.contexts:
            raise table.error(
                "metric", f"is {metric}, but context_options are scored; use accuracy"
            )
        if metric == "regex" and item.answer is not None:
            _try_regex(item, item.answer)
    return metric


def _try_regex(item: Item, answer: str) -> None:
    try:
        re.compile(answer)
    except (re.error, OverflowError, RecursionError) as error:
        problem = f"is not a regular expression: {error}; metric = regex searches for it"
        raise PromptError(f"{item.where}: answer: {problem}") from None


def _rows(top: Table, kind: str, rules: Rules) -> Iterator[Row]:
    """The rows of `kind`, examples or items, from the file itself or from a data file."""
    file_key = f"{kind}_file"
    if file_key in top.values:
        if kind in top.values:
            raise top.error(file_key, f"and {kind} are both given; keep one of them")
        yield from _file_rows(top, kind)
        return
    for name in (f"{kind}_skip", f"{kind}_limit"):
        if name in top.values:
            raise top.error(name, f"needs {file_key}, which is missing; give it, or drop {name}")
    if kind in top.values:
        yield from _inline_rows(top, kind, rules)
    elif kind == "items":
        raise top.error(kind, "is missing; give [[items]] or items_file")


def _file_rows(top: Table, kind: str) -> Iterator[Row]:
    file_key = f"{kind}_file"
    path = top.source.path.parent / top.text(file_key, "")
    first = top.whole(f"{kind}_skip", 0) or 0
    limit = top.whole(f"{kind}_limit", 1)
    end = None if limit is None else first + limit
    row = None
    try:
        for row in islice(read_rows(path), first, end):
            yield row
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        reason = getattr(error, "strerror", None) or error
        problem = f"cannot read {path}: {reason}; the path is relative to this file's folder"
        raise top.error(file_key, problem) from None
    if row is None:
        after = f" after row {first}" if first else ""
        raise top.error(file_key, f"{path} has no rows{after}; give a file with at least one more")


def _inline_rows(top: Table, kind: str, rules: Rules) -> Iterator[Row]:
    tables = top.values[kind]
    is_list = isinstance(tables, list) and len(tables) > 0
    if not is_list or not all(isinstance(table, dict) for table in tables):
        raise top.error(kind, f"is {short(tables)}; write each as a [[{kind}]] table")
    for index, values in enumerate(tables):
        table = Table(top.source, (kind, index), values)
        known = tuple(dict.fromkeys((*rules.fields, *NAMES)))
        table.only(known, _AT_THE_TOP)
        yield Row(values, top.source.where((kind, index)), table.error)
