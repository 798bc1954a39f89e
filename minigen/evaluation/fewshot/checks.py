"""What is likely to spoil a prompt file's results though every key is right; no model is needed."""

from __future__ import annotations

from collections.abc import Callable

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
from minigen.evaluation.fewshot.finding import Finding, Found, gather
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
    """Everything there is to say about a prompt file, errors first; one finding stands for all of its kind.

    With `encode`, a tokenizer's, also what depends on tokens, where `prefix_id` is what stands for an empty text (a
    tokenizer's `begin_id`; None: nothing does); with `context`, the model's limit in tokens, also whether every prompt
    fits with its answer, or with `max_new` new tokens (None: generate.max_tokens).
    """
    findings = [
        *gather("error", _shot_counts(file)),
        *gather("error", _same_seeds(file)),
        *gather("error", _empty(file)),
        *gather("error", gold_missing(file)),
        *gather("error", same_choices(file)),
        *gather("error", _stops(file)),
        *gather("warning", same_wrong_choices(file)),
        *gather("warning", _unknown_answers(file)),
        *gather("warning", _no_stop(file)),
        *gather("warning", _unused_examples(file)),
        *gather("warning", _items_among_examples(file)),
        *gather("warning", _joins(file)),
        *gather("warning", _ends_in_space(file)),
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
        findings.append(
            Finding(
                "error", str(file.path), f"the tokenizer cannot encode a text of this file: {error}"
            )
        )
    return sorted(findings, key=lambda finding: finding.level == "warning")


def _shot_counts(file: PromptFile) -> Found:
    for n in file.shots.n:
        if n > len(file.examples):
            yield (
                str(file.path),
                f"shots.n has {n}, but there are {len(file.examples)} examples; add some, or lower it",
            )


def _same_seeds(file: PromptFile) -> Found:
    if file.shots.pick == "first" and len(file.shots.seeds) > 1:
        seeds = len(file.shots.seeds)
        yield (
            str(file.path),
            f'shots.seeds has {seeds} seeds, but pick = "first" ignores them; use "random" or one seed',
        )


def _entries(file: PromptFile) -> tuple[Example | Item, ...]:
    return (*file.examples, *file.items)


def _empty(file: PromptFile) -> Found:
    for entry in _entries(file):
        if entry.answer is not None and not entry.answer.strip():
            yield entry.where, f"the answer is {entry.answer!r}; give it a text"
    for where, choices in choice_sets(file):
        for choice in choices:
            if not choice.strip():
                yield where, f"a choice is {choice!r}; give it a text"


def _stops(file: PromptFile) -> Found:
    if file.score.metric == "accuracy":
        return  # nothing is generated
    for entry in file.examples if file.score.metric == "regex" else _entries(file):
        for stop in file.generate.get("stop", ()):
            if entry.answer is not None and stop in file.answer_sep + entry.answer:
                yield (
                    entry.where,
                    f"stop {stop!r} is in {short(file.answer_sep + entry.answer)}; no output can hold it",
                )


def _unknown_answers(file: PromptFile) -> Found:
    for item in file.items:
        if item.answer is None or (item.contexts and item.gold is None):
            yield (
                item.where,
                "no answer is given, so the item is not scored; give output, answer or gold",
            )


def _no_stop(file: PromptFile) -> Found:
    if file.score.metric in ("exact", "f1") and not file.generate.get("stop"):
        metric = file.score.metric
        yield (
            str(file.path),
            f"metric = {metric} without generate.stop: the output runs on past the answer; set stop",
        )


def _unused_examples(file: PromptFile) -> Found:
    if file.examples and not any(file.shots.n):
        yield str(file.path), f"the {len(file.examples)} examples are never shown; set n in [shots]"


def _items_among_examples(file: PromptFile) -> Found:
    shown = {fill(file.template, example.fields): example.where for example in file.examples}
    for item in file.items:
        for fields in item.variants:
            where = shown.get(fill(file.template, fields))
            if where is not None:
                yield (
                    item.where,
                    f"this item is also an example, at {where}; its answer may stand in its own prompt",
                )
                break


def _joins(file: PromptFile) -> Found:
    for example in file.examples:
        problem = _join(fill(file.template, example.fields), file.answer_sep, example.answer)
        if problem:
            yield example.where, problem
    for item in file.items:
        for answer in item.choices or (item.answer or "",):
            problem = _join(fill(file.template, item.variants[0]), file.answer_sep, answer)
            if problem:
                yield item.where, problem
                break


def _join(block: str, separator: str, answer: str) -> str | None:
    """What is wrong where a prompt meets its answer. A line's end before the answer is no fault: it is a token."""
    before, after = block[-1:], separator + answer
    shown = f"{block[-12:]!r} + {short(after)}"
    if before.isspace() and after[:1].isspace():
        return f"white space on both sides of the join {shown}: the two make one token in real text; keep one of them"
    if before.isspace() and before != "\n" and not separator:
        advice = "move the space from the template to answer_sep"
        return (
            f"the prompt ends with {before!r}, in {shown}: in real text it is in the token of the "
            f"next word; {advice}"
        )
    if separator[-1:].isspace() and answer[:1].isspace():
        return f"answer_sep {separator!r} is followed by more white space, in {shown}; take it from the answer"
    if before.isascii() and before.isalnum() and after[:1].isascii() and after[:1].isalnum():
        return f"nothing stands between prompt and answer, in {shown}: they run into one word; set answer_sep"
    return None


def _ends_in_space(file: PromptFile) -> Found:
    for entry in _entries(file):
        if entry.answer and entry.answer[-1].isspace():
            yield (
                entry.where,
                f"the answer {short(entry.answer)} ends with white space; take it off",
            )
