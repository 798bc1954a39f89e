"""What a row means: the shapes in which data sets write an input, its answer, and the choices.

Every text of a row is a field of its own name; `input` is also another name for what the shape's input is called.
A name that the template uses is always a field, never the answer or the choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minigen.evaluation.fewshot.data import LABEL, TEXT, Row
from minigen.evaluation.fewshot.file import Example, Fields, Item
from minigen.evaluation.fewshot.source import short
from minigen.reading.spellings import advice

INPUTS = (
    "context",
    "prompt",
    "query",
    TEXT,
)  # what `input` stands for where a row has just one of them
ANSWERS = ("output", "answer", "completion", LABEL)
CONTEXTS, CONTINUATION = "context_options", "continuation"
CHOICES, GOLD = "choices", "gold"
NAMES = ("input", *INPUTS, *ANSWERS, CHOICES, GOLD, CONTEXTS, CONTINUATION)


@dataclass(frozen=True)
class Rules:
    """What the prompt file says about all rows."""

    fields: tuple[str, ...]  # those of the template
    answer_sep: str
    choices: tuple[str, ...]  # of an item that has none of its own
    labels: Mapping[str, str]  # answer in the data -> answer in the prompt; empty: as they are


def to_example(row: Row, rules: Rules) -> Example:
    """The row as an example. Raises PromptError for a missing field or answer, and for values of a wrong kind."""
    item = to_item(row, rules)
    if item.contexts:
        if item.gold is None:
            raise row.error(GOLD, "is missing; an example must say which context is right")
        return Example(item.contexts[item.gold], item.answer or "", row.where)
    if item.answer is None:
        used = [name for name in ANSWERS if name in row.values and name in rules.fields]
        if used:
            raise row.error(
                used[0],
                f"is in the template, so it is no answer; the template ends before it: drop {{{used[0]}}}",
            )
        raise row.error("output", "is missing; an example needs its answer")
    return Example(item.fields, item.answer, row.where)


def to_item(row: Row, rules: Rules) -> Item:
    """The row as an item. Raises PromptError for a missing field, and for values of a wrong kind."""
    if CONTEXTS in row.values and CONTEXTS not in rules.fields:
        return _choice_of_contexts(row, rules)
    own = _own_choices(row, rules)
    choices = own or rules.choices
    answer = _answer(row, rules)
    fields = _fields(row, rules)
    gold = _gold(row, rules, choices)
    if gold is not None:
        if answer is not None and answer != choices[gold]:
            raise row.error(
                GOLD,
                f"means {short(choices[gold])}, but the answer is {short(answer)}; keep one of them",
            )
        answer = choices[gold]
    elif answer in choices:
        gold = choices.index(answer)
    if answer is None and not choices and set(row.values) == {TEXT} and TEXT not in rules.fields:
        fields, answer = _last_word(row, rules)
    _require(row, rules, fields)
    return Item(fields, answer, choices, (), row.where, gold)


def _choice_of_contexts(row: Row, rules: Rules) -> Item:
    """Winogrande's: which of several contexts makes one continuation likeliest (Trinh and Le 2018)."""
    if rules.choices or CHOICES in row.values:
        raise row.error(
            CONTEXTS, "is a choice of contexts, but there are choices too; drop one of them"
        )
    options = _texts(row, CONTEXTS)
    if CONTINUATION not in row.values:
        raise row.error(CONTINUATION, f"is missing; {CONTEXTS} needs what follows each of them")
    answer = _text(row, CONTINUATION).removeprefix(rules.answer_sep)
    others = _fields(row, rules)
    contexts = tuple({**others, "input": option, "context": option} for option in options)
    _require(row, rules, contexts[0])
    return Item({}, answer, (), contexts, row.where, _gold(row, rules, options))


def _fields(row: Row, rules: Rules) -> Fields:
    """The texts of a row by name. What is no text is no field, which matters only where the template wants it."""
    answers = [name for name in ANSWERS if name not in rules.fields]
    names = [
        name for name in row.values if name not in (*answers, CONTEXTS, CONTINUATION, CHOICES, GOLD)
    ]
    names += [name for name in (CHOICES, GOLD) if name in row.values and name in rules.fields]
    fields: dict[str, str] = {}
    for name in names:
        if (
            name in rules.fields
            or name in ("input", *INPUTS)
            or type(row.values[name]) in (str, int)
        ):
            fields[name] = _text(row, name)
    inputs = [name for name in INPUTS if name in fields]
    if len(inputs) == 1:
        fields.setdefault("input", fields[inputs[0]])
    return fields


def _answer(row: Row, rules: Rules) -> str | None:
    names = [name for name in ANSWERS if name in row.values and name not in rules.fields]
    if not names:
        return None
    if len(names) > 1:
        raise row.error(names[1], f"is an answer, and so is {names[0]}; keep one of them")
    answer = _text(row, names[0])
    if names[0] == "completion":
        # In this shape the separator is part of the completion, and the text must be context + completion.
        answer = answer.removeprefix(rules.answer_sep)
    return _labelled(row, names[0], answer, rules.labels) if rules.labels else answer


def _labelled(row: Row, name: str, answer: str, labels: Mapping[str, str]) -> str:
    """The word of a label: of the label itself, or of what stands before a colon in it, the longest first."""
    label = answer
    while label not in labels:
        label, colon, _ = label.rpartition(":")
        if not colon:
            raise row.error(
                name, f"is {short(answer)}, which is not in labels; {advice(answer, labels)}"
            )
    return labels[label]


def _last_word(row: Row, rules: Rules) -> tuple[Fields, str]:
    """LAMBADA's: a text whose last word is to be found (Paperno et al. 2016)."""
    words = _text(row, TEXT).rsplit(maxsplit=1)
    if len(words) < 2:
        raise row.error(TEXT, "has no two words; its last word is the answer")
    return {"input": words[0]}, words[1]


def _own_choices(row: Row, rules: Rules) -> tuple[str, ...]:
    if CHOICES not in row.values or CHOICES in rules.fields:
        return ()
    return _texts(row, CHOICES)


def _gold(row: Row, rules: Rules, options: tuple[str, ...]) -> int | None:
    if GOLD not in row.values or GOLD in rules.fields:
        return None
    gold = row.values[GOLD]
    if not options:
        raise row.error(
            GOLD, "is an index, but there are no choices; give choices, or the answer as output"
        )
    if type(gold) is not int or not 0 <= gold < len(options):
        raise row.error(GOLD, f"is {short(gold)}; it must be an index from 0 to {len(options) - 1}")
    return gold


def _require(row: Row, rules: Rules, fields: Fields) -> None:
    for name in rules.fields:
        if name not in fields:
            has = f"has only {', '.join(row.values)}" if row.values else "is empty"
            raise row.error(name, f"is missing; the template needs {{{name}}}, and the row {has}")


def _texts(row: Row, name: str) -> tuple[str, ...]:
    values = row.values[name]
    if not isinstance(values, list) or len(values) < 2:
        raise row.error(name, f"is {short(values)}; it must be a list of at least two texts")
    return tuple(_as_text(row, name, value) for value in values)


def _text(row: Row, name: str) -> str:
    return _as_text(row, name, row.values[name])


def _as_text(row: Row, name: str, value: Any) -> str:
    if type(value) is int:  # counting and arithmetic tasks write their answers so
        return str(value)
    if not isinstance(value, str):
        raise row.error(name, f"is {short(value)}; it must be a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        raise row.error(
            name, f"has half a character, U+{code:04X}; write the whole \\u pair"
        ) from None
    return value
