"""Checks of a prompt file that is valid, for what is likely to spoil its results.

No model is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from minigen.errors import MinigenError
from minigen.evaluation.fewshot.choice_checks import (
    choice_sets,
    contained_choices,
    example_balance,
    gold_missing,
    item_balance,
    nothing_before,
    same_choices,
    same_wrong_choices,
    shared_beginnings,
)
from minigen.evaluation.fewshot.file import Example, Item, PromptFile
from minigen.evaluation.fewshot.finding import Finding, Problems, gather
from minigen.evaluation.fewshot.source import short
from minigen.evaluation.fewshot.template import fill
from minigen.evaluation.fewshot.token_checks import check_tokens


def check(
    file: PromptFile,
    encode: Callable[[str], list[int]] | None = None,
    context: int | None = None,
    max_new: int | None = None,
    prefix_id: int | None = None,
) -> list[Finding]:
    """All findings about a prompt file, errors first; one finding stands for all of its kind.

    Args:
        file: the prompt file.
        encode: a tokenizer's; with it, problems that depend on tokens are found too.
        context: the model's limit in tokens; with it and `encode`, it is checked that every prompt
            fits together with its answer, or with `max_new` new tokens.
        max_new: new tokens to make room for; None: generate.max_tokens of the file.
        prefix_id: the token that stands for an empty text (a tokenizer's `begin_id`); None: there
            is none.
    """
    findings = [
        *gather("error", _shot_counts(file)),
        *gather("error", _unused_seeds(file)),
        *gather("error", _empty_texts(file)),
        *gather("error", gold_missing(file)),
        *gather("error", same_choices(file)),
        *gather("error", _stops_in_answers(file)),
        *gather("warning", same_wrong_choices(file)),
        *gather("warning", _unknown_answers(file)),
        *gather("warning", _missing_stop(file)),
        *gather("warning", _unused_examples(file)),
        *gather("warning", _items_among_examples(file)),
        *gather("warning", _joins(file)),
        *gather("warning", _trailing_space(file)),
        *gather("warning", example_balance(file)),
        *gather("warning", item_balance(file)),
        *gather("warning", contained_choices(file)),
    ]
    try:
        findings += gather("warning", shared_beginnings(file, encode))
        if encode is None:
            findings += gather("warning", nothing_before(file))
        else:
            findings += check_tokens(file, encode, context, max_new, prefix_id)
    except MinigenError as error:
        message = f"the tokenizer cannot encode a text of this file: {error}"
        findings.append(Finding("error", str(file.path), message))
    return sorted(findings, key=lambda finding: finding.level == "warning")


def _shot_counts(file: PromptFile) -> Problems:
    for n in file.shots.n:
        if n > len(file.examples):
            yield (
                str(file.path),
                f"shots.n has {n}, but the number of examples is {len(file.examples)}; add "
                "some, or lower it",
            )


def _unused_seeds(file: PromptFile) -> Problems:
    if file.shots.pick == "first" and len(file.shots.seeds) > 1:
        yield (
            str(file.path),
            f'shots.seeds has {len(file.shots.seeds)} seeds, but pick = "first" ignores them; '
            'use "random" or one seed',
        )


def _entries(file: PromptFile) -> tuple[Example | Item, ...]:
    return (*file.examples, *file.items)


def _empty_texts(file: PromptFile) -> Problems:
    for entry in _entries(file):
        if entry.answer is not None and not entry.answer.strip():
            yield entry.where, f"the answer is {entry.answer!r}; it must not be empty"
    for where, choices in choice_sets(file):
        for choice in choices:
            if not choice.strip():
                yield where, f"a choice is {choice!r}; it must not be empty"


def _stops_in_answers(file: PromptFile) -> Problems:
    if file.score.metric == "accuracy":
        return  # nothing is generated
    entries: Sequence[Example | Item] = _entries(file)
    if file.score.metric == "regex":  # then the answers of items are patterns
        entries = file.examples
    for entry in entries:
        if entry.answer is None:
            continue
        text = file.answer_sep + entry.answer
        for stop in file.generate.get("stop", ()):
            if stop in text:
                yield entry.where, f"stop {stop!r} is in {short(text)}, so no output can contain it"


def _unknown_answers(file: PromptFile) -> Problems:
    for item in file.items:
        if item.answer is None or (item.contexts and item.gold is None):
            yield (
                item.where,
                "no answer is given, so the item is not scored; give output, answer or gold",
            )


def _missing_stop(file: PromptFile) -> Problems:
    metric = file.score.metric
    if metric in ("exact", "f1") and not file.generate.get("stop"):
        yield (
            str(file.path),
            f"metric = {metric} without generate.stop: the output continues after the answer; "
            "set stop",
        )


def _unused_examples(file: PromptFile) -> Problems:
    if file.examples and not any(file.shots.n):
        count = len(file.examples)
        yield str(file.path), f"examples that are never shown: {count}; set n in [shots]"


def _items_among_examples(file: PromptFile) -> Problems:
    example_of: dict[str, str] = {}  # block -> FILE:LINE of the example
    for example in file.examples:
        example_of[fill(file.template, example.fields)] = example.where
    for item in file.items:
        for fields in item.variants:
            where = example_of.get(fill(file.template, fields))
            if where is not None:
                yield (
                    item.where,
                    f"this item is also an example, at {where}; its own prompt may contain its "
                    "answer",
                )
                break


def _joins(file: PromptFile) -> Problems:
    for example in file.examples:
        block = fill(file.template, example.fields)
        problem = _join_problem(block, file.answer_sep, example.answer)
        if problem:
            yield example.where, problem
    for item in file.items:
        block = fill(file.template, item.variants[0])
        for answer in item.choices or (item.answer or "",):
            problem = _join_problem(block, file.answer_sep, answer)
            if problem:
                yield item.where, problem
                break


def _join_problem(block: str, separator: str, answer: str) -> str | None:
    """What is wrong where a prompt meets its answer.

    The end of a line before the answer is no problem: it is a token of its own.
    """
    last = block[-1:]
    continuation = separator + answer
    first = continuation[:1]
    join = f"{block[-12:]!r} + {short(continuation)}"
    if last.isspace() and first.isspace():
        return (
            f"white space on both sides of the join {join}: in running text the two are one "
            "token; keep one of them"
        )
    if last.isspace() and last != "\n" and not separator:
        return (
            f"the prompt ends with {last!r}, in {join}: in running text it belongs to "
            "the token of the next word; move the space from the template to answer_sep"
        )
    if separator[-1:].isspace() and answer[:1].isspace():
        return (
            f"answer_sep {separator!r} is followed by more white space, in {join}; remove it "
            "from the answer"
        )
    if last.isascii() and last.isalnum() and first.isascii() and first.isalnum():
        return (
            f"nothing separates prompt and answer, in {join}: they run together into one word; "
            "set answer_sep"
        )
    return None


def _trailing_space(file: PromptFile) -> Problems:
    for entry in _entries(file):
        if entry.answer and entry.answer[-1].isspace():
            yield entry.where, f"the answer {short(entry.answer)} ends with white space; remove it"
