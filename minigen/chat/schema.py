"""What a session file must hold: one table, and the one place that checks it. Each fault names its field.

A file may come from a stranger. What passes here can be talked on, given again and shown; whether the tokens are the
model's is asked where it meets one, see `kept.fitted`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from minigen.chat.conversation import Message, Run
from minigen.chat.engine import CHAT_SETTINGS, GUESSING
from minigen.chat.window import POLICIES
from minigen.errors import UsageError, shown
from minigen.generation.options import Options
from minigen.reading import has_half_character, is_id
from minigen.reading.settings import Range

Check = Callable[
    [str, Any], Any
]  # a field's name and its value to the value as it is used; raises FieldError
MOST = 2**31  # tokens, ids and messages: what any file may count
QUOTED = 60  # characters of a value in a message
MISSING = object()


class FieldError(Exception):
    """What is wrong with a field, as the end of one line."""


def wrong(name: str, value: Any, wanted: str) -> FieldError:
    found = "missing" if value is MISSING else quoted(value)
    return FieldError(f"{name} is {found}: it must be {wanted}")


def quoted(value: Any) -> str:
    """A value in a message."""
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    return json.dumps(value) if value is None or isinstance(value, bool) else shown(value, QUOTED)


# -- kinds of fields --
def text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise wrong(name, value, "a text")
    if has_half_character(value):
        raise FieldError(f"{name} is not valid Unicode: it has half of a surrogate pair")
    return value


def file_name(name: str, value: Any) -> str:
    if "\0" in text(name, value):
        raise FieldError(f"{name} has a NUL character: no file or model is named so")
    return str(value)


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise wrong(name, value, "true or false")
    return value


def whole(least: int = 0, most: int = MOST) -> Check:
    numbers = Range(whole=True, least=least, most=most)

    def check(name: str, value: Any) -> int:
        number = numbers.take(value)
        if number is None:
            raise wrong(name, value, str(numbers))
        return int(number)

    return check


def even(name: str, value: Any) -> int:
    if whole()(name, value) % 2:
        raise wrong(name, value, "even: a window begins with the user")
    return int(value)


def one_of(*names: str) -> Check:
    def check(name: str, value: Any) -> str:
        if value not in names:
            raise wrong(name, value, f"one of {', '.join(names)}")
        return str(value)

    return check


def or_null(check: Check) -> Check:
    return lambda name, value: None if value is None else check(name, value)


def many(check: Check) -> Check:
    def each(name: str, value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise wrong(name, value, "a list")
        return [check(f"{name}[{i}]", item) for i, item in enumerate(value)]

    return each


def settings(*names: str, needed: tuple[str, ...] = ()) -> Check:
    """Those of a chat; one that is null is at its default."""

    def check(name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise wrong(name, value, "an object")
        found = {key: item for key, item in value.items() if item is not None}
        for key in found:
            if key not in names:
                raise FieldError(
                    f"{name} has {quoted(key)}, which is no setting here: there are {', '.join(names)}"
                )
        for key in needed:
            if key not in found:
                raise FieldError(
                    f"{name} has no {key}: an answer cannot be given again without one"
                )
        if isinstance(found.get("logit_bias"), dict):
            found["logit_bias"] = bias(f"{name}.logit_bias", found["logit_bias"])
        many(text)(f"{name}.stop", found.get("stop", []))
        or_null(whole(1))(f"{name}.max_tokens", found.get("max_tokens"))
        for key, item in found.items():
            try:
                Options.of(**{key: item})
            except UsageError as error:
                raise FieldError(f"{name}.{error}") from None
        return found

    return check


def bias(name: str, value: Mapping[str, Any]) -> dict[int, Any]:
    """JSON has no whole numbers as keys: those of logit_bias are made such again."""
    for key in value:
        if not is_id(key):
            raise FieldError(f"{name} has the key {quoted(key)}: it must map token ids to numbers")
    return {int(key): item for key, item in value.items()}


# -- the table --
@dataclass(frozen=True)
class Field:
    check: Check
    default: Any = MISSING  # where the field may be missing


RUN = {
    "start": Field(whole()),
    "tokens": Field(whole()),
    "finish": Field(one_of("stop", "length", "interrupted")),
    "first": Field(even),
    "settings": Field(
        settings(*(name for name in CHAT_SETTINGS if name not in GUESSING), needed=("seed",))
    ),
    "system": Field(or_null(text)),
    "sinks": Field(or_null(whole(8))),
}
MESSAGE = {
    "role": Field(one_of("user", "assistant")),
    "content": Field(text),
    "ids": Field(or_null(many(whole())), None),
    "runs": Field(
        or_null(many(lambda name, value: Run(**fields_of(RUN, value, name, exactly=True)))), None
    ),
}
HEAD = {
    "model": Field(or_null(file_name)),
    "tokenizer": Field(text),
    "overflow": Field(one_of(*POLICIES)),
    "context": Field(or_null(whole(8))),
    "settings": Field(settings(*CHAT_SETTINGS)),
    "plain": Field(flag, False),
    "system": Field(or_null(text)),
}


def fields_of(
    table: Mapping[str, Field], row: Any, name: str = "", *, exactly: bool = False
) -> dict[str, Any]:
    """The fields of an object by a table. Others are left, or are a fault, where it must be `exactly` those."""
    if not isinstance(row, dict):
        raise wrong(name, row, "an object")
    before = f"{name}." if name else ""
    for key in row if exactly else ():
        if key not in table:
            raise FieldError(
                f"{before}{quoted(key)} is no field here: there are {', '.join(table)}"
            )
    found = {}
    for key, field in table.items():
        value = row.get(key, field.default)
        found[key] = (
            value if key not in row and value is not MISSING else field.check(before + key, value)
        )
    return found


def message_of(row: dict[str, Any], number: int, name: str = "") -> Message:
    """The spoken message of this number, from 0. Raises FieldError."""
    found = fields_of(MESSAGE, row, name)
    before = f"{name}." if name else ""
    expected = ("user", "assistant")[number % 2]
    if found["role"] != expected:
        raise FieldError(
            f"{before}role is {found['role']!r}: user and assistant must alternate, and here is {expected}'s turn"
        )
    ids, runs = found["ids"], tuple(found["runs"] or ())
    if found["role"] == "user" and (ids is not None or runs):
        raise FieldError(
            f"{before}{'runs' if ids is None else 'ids'} is what an answer has, and this is the user's message"
        )
    message = Message(found["role"], found["content"], None if ids is None else tuple(ids), runs)
    reason = runs_fault(message, number)
    if reason:
        raise FieldError(f"{before}{reason}")
    return message


def runs_fault(message: Message, number: int) -> str:
    """Why the runs of an answer cannot have made its tokens, by their numbers; empty where they can."""
    before = 0
    for i, run in enumerate(message.runs):
        if run.first >= number:
            return f"runs[{i}].first is {run.first}: it must be less than the {number} messages before this one"
        if message.ids is not None and not before <= run.start <= len(message.ids):
            return (
                f"runs[{i}].start is {run.start}: it must be from {before} to the {len(message.ids)} "
                f"tokens there are"
            )
        before = run.start
    return ""
