"""From a `*.prompt.toml` to a checked PromptFile; `minigen help prompts` describes the format."""

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
NOT_HERE = (
    "sampling",
    "speculate",
    "draft_tokens",
)  # speculation is for one text, and prompts are one batch
GENERATE = ("temp", *(f.name for f in fields(Options) if f.name not in NOT_HERE), *SETTINGS)
_BELOW = {
    name: f"in [{table}]"
    for table, names in (("shots", SHOTS), ("score", SCORE), ("generate", GENERATE))
    for name in names
}
_ABOVE = dict.fromkeys(TOP, "at the top, before the first [table]")


def load_prompt_file(path: str | os.PathLike[str]) -> PromptFile:
    """Reads a prompt file and the data that it points at.

    Raises PromptError for the first mistake: one line, `FILE:LINE: key: what is wrong; what to do`.
    """
    source = Source(Path(path))
    top = Table(source, (), source.values)
    top.only(TOP, _BELOW)
    if "format" not in top.values:
        raise top.error("format", "is missing; begin the file with format = 1")
    if type(top.values["format"]) is not int or top.values["format"] != 1:
        raise top.error(
            "format", f"is {short(top.values['format'])}; this program reads format = 1"
        )
    template = top.text("template", "{input}")
    try:
        names = field_names(template)
    except ValueError as error:
        raise top.error("template", str(error)) from None
    rules = Rules(names, top.text("answer_sep", " "), _choices(top), _labels(top))
    shots, generate = _shots(top.table("shots")), _generate(top.table("generate"))
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
        raise top.error("labels", "is empty; name each label's word, or drop the key")
    return {name: labels.text(name, "") for name in labels.values}


def _shots(table: Table) -> Shots:
    table.only(SHOTS, _ABOVE)
    pick = cast(Pick, table.one_of("pick", get_args(Pick), Shots.pick))
    return Shots(table.wholes("n", None, Shots.n), pick, table.wholes("seeds", LIMIT, Shots.seeds))


def _generate(table: Table) -> dict[str, Any]:
    table.only(GENERATE, _ABOVE)
    settings: dict[str, Any] = {}
    for key, value in table.values.items():
        name = "temperature" if key == "temp" else key
        if name in settings:
            raise table.error(key, "and temperature are the same setting; keep one of them")
        if name == "logit_bias" and isinstance(value, dict):  # a TOML key is a text
            value = {int(token) if is_id(token) else token: bias for token, bias in value.items()}
        settings[name] = value
        _try_options(table, key, {name: value})
    if "beams" not in settings:
        settings.setdefault("temperature", 0)
    _try_options(table, None, settings)
    return settings


def _try_options(table: Table, key: str | None, settings: dict[str, Any]) -> None:
    try:
        Options.of(**settings)
    except UsageError as error:
        problem = f"{error}; see minigen generate --help"
        raise table.error(key, problem) if key else table.source.error(table.key, problem) from None


def _score(table: Table, items: tuple[Item, ...]) -> Score:
    table.only(SCORE, _ABOVE)
    closed = [bool(item.choices or item.contexts) for item in items]
    if "metric" not in table.values and len(set(closed)) > 1:
        odd = items[closed.index(False)]
        raise PromptError(
            f"{odd.where}: choices: is missing, but other items have it; give it to all or to none"
        )
    default = "accuracy" if closed[0] else "exact"
    metric = cast(Metric, table.one_of("metric", get_args(Metric), default))
    if metric == "accuracy" and not all(closed):
        where = items[closed.index(False)].where
        raise table.error(
            "metric",
            f"is accuracy, but the item at {where} has no choices; give choices, or use exact",
        )
    if metric != "accuracy":
        for item in items:
            if item.contexts:
                raise table.error(
                    "metric", f"is {metric}, but context_options are scored; use accuracy"
                )
            if metric == "regex" and item.answer is not None:
                _try_regex(item, item.answer)
    normalize = cast(Normalize, table.one_of("normalize", get_args(Normalize), Score.normalize))
    calibrate = table.texts("calibrate")
    for name, used in (("normalize", normalize != "none"), ("calibrate", bool(calibrate))):
        if used and metric != "accuracy":
            raise table.error(
                name, f"is for choices, and the metric is {metric}; drop it, or give choices"
            )
    if calibrate and any(item.contexts for item in items):
        raise table.error(
            "calibrate", "cannot be with context_options, which share one answer; drop it"
        )
    return Score(normalize, metric, calibrate, table.text("uncond_context", Score.uncond_context))


def _try_regex(item: Item, answer: str) -> None:
    try:
        re.compile(answer)
    except (re.error, OverflowError, RecursionError) as error:
        problem = f"is no regular expression: {error}; metric = regex searches for it"
        raise PromptError(f"{item.where}: answer: {problem}") from None


def _rows(top: Table, kind: str, rules: Rules) -> Iterator[Row]:
    """The rows of examples or items, from the file itself or from its data file."""
    file_key, has_file = f"{kind}_file", f"{kind}_file" in top.values
    if has_file and kind in top.values:
        raise top.error(file_key, f"and {kind} are both given; keep one of them")
    if has_file:
        yield from _file_rows(top, kind)
        return
    for name in (f"{kind}_skip", f"{kind}_limit"):
        if name in top.values:
            raise top.error(name, f"is for {file_key}, which is missing; give it, or drop this")
    if kind in top.values:
        yield from _inline_rows(top, kind, rules)
    elif kind == "items":
        raise top.error(kind, "is missing; give [[items]] or items_file")


def _file_rows(top: Table, kind: str) -> Iterator[Row]:
    file_key = f"{kind}_file"
    path = top.source.path.parent / top.text(file_key, "")
    skip, limit = top.whole(f"{kind}_skip", 0) or 0, top.whole(f"{kind}_limit", 1)
    row = None
    try:
        for row in islice(read_rows(path), skip, None if limit is None else skip + limit):
            yield row
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        reason = getattr(error, "strerror", None) or error
        problem = f"cannot read {path}: {reason}; the path starts at this file's folder"
        raise top.error(file_key, problem) from None
    if row is None:
        raise top.error(
            file_key,
            f"{path} has no rows{f' after {skip}' if skip else ''}; give one with at least one",
        )


def _inline_rows(top: Table, kind: str, rules: Rules) -> Iterator[Row]:
    tables = top.values[kind]
    if (
        not isinstance(tables, list)
        or not tables
        or not all(isinstance(table, dict) for table in tables)
    ):
        raise top.error(kind, f"is {short(tables)}; write each as a [[{kind}]] table")
    for index, values in enumerate(tables):
        table = Table(top.source, (kind, index), values)
        above = {name: place for name, place in _ABOVE.items() if name != "choices"}
        table.only(tuple(dict.fromkeys((*rules.fields, *NAMES))), above)
        yield Row(values, top.source.where((kind, index)), table.error)
