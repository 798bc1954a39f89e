"""What a session file must contain: one table, and the only place that checks it.

A file is not trusted. What passes here can be continued, replayed and shown. Whether its tokens are
the model's is checked once there is a model, see `kept.fitted`.
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

Check = Callable[[str, Any], Any]  # (name, value) of a field -> the value to use, or FieldError
MOST = 2**31  # of any number of tokens, ids or messages
QUOTED = 60  # characters of a value in a message
MISSING = object()


class FieldError(Exception):
    """What is wrong with a field; the message is the end of a line."""


def must_be(name: str, value: Any, expected: str) -> FieldError:
    """The error of a field whose value is not as expected."""
    actual = "missing" if value is MISSING else quoted(value)
    return FieldError(f"{name} is {actual}: it must be {expected}")


def quoted(value: Any) -> str:
    """A value in a message."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return shown(value, QUOTED)


# -- kinds of fields --
def text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise must_be(name, value, "a string")
    if has_half_character(value):
        raise FieldError(f"{name} is not valid Unicode: it has half of a surrogate pair")
    return value


def file_name(name: str, value: Any) -> str:
    if "\0" in text(name, value):
        raise FieldError(f"{name} has a NUL character, which no name of a file or model has")
    return str(value)


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise must_be(name, value, "true or false")
    return value


def whole(least: int = 0, most: int = MOST) -> Check:
    numbers = Range(whole=True, least=least, most=most)

    def check(name: str, value: Any) -> int:
        number = numbers.take(value)
        if number is None:
            raise must_be(name, value, str(numbers))
        return int(number)

    return check


def even(name: str, value: Any) -> int:
    if whole()(name, value) % 2:
        raise must_be(name, value, "even: a window begins with a message of the user")
    return int(value)


def one_of(*names: str) -> Check:
    def check(name: str, value: Any) -> str:
        if value not in names:
            raise must_be(name, value, f"one of {', '.join(names)}")
        return str(value)

    return check


def or_null(check: Check) -> Check:
    def check_or_null(name: str, value: Any) -> Any:
        return None if value is None else check(name, value)

    return check_or_null


def many(check: Check) -> Check:
    def each(name: str, value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise must_be(name, value, "a list")
        return [check(f"{name}[{i}]", item) for i, item in enumerate(value)]

    return each


def settings(*names: str, needed: tuple[str, ...] = ()) -> Check:
    """An object of the settings `names`; null stands for the default.

    Those `needed` must be there.
    """

    def check(name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise must_be(name, value, "an object")
        given = {key: item for key, item in value.items() if item is not None}
        for key in given:
            if key not in names:
                raise FieldError(
                    f"{name} has {quoted(key)}, which is not a setting of it: "
                    f"there are {', '.join(names)}"
                )
        for key in needed:
            if key not in given:
                raise FieldError(f"{name} has no {key}, without which an answer cannot be replayed")
        if isinstance(given.get("logit_bias"), dict):
            given["logit_bias"] = bias(f"{name}.logit_bias", given["logit_bias"])
        many(text)(f"{name}.stop", given.get("stop", []))
        or_null(whole(1))(f"{name}.max_tokens", given.get("max_tokens"))
        for key, item in given.items():
            try:
                Options.of(**{key: item})
            except UsageError as error:
                raise FieldError(f"{name}.{error}") from None
        return given

    return check


def bias(name: str, value: Mapping[str, Any]) -> dict[int, Any]:
    """A logit_bias by token ids, which JSON stores as strings."""
    for key in value:
        if not is_id(key):
            raise FieldError(f"{name} has the key {quoted(key)}: it must map token ids to numbers")
    return {int(key): item for key, item in value.items()}


# -- the table --
@dataclass(frozen=True)
class Field:
    check: Check
    default: Any = MISSING  # MISSING: the field is required


def run_of(name: str, value: Any) -> Run:
    return Run(**fields_of(RUN, value, name, exactly=True))


RUN_SETTINGS = tuple(name for name in CHAT_SETTINGS if name not in GUESSING)
RUN = {
    "start": Field(whole()),
    "tokens": Field(whole()),
    "finish": Field(one_of("stop", "length", "interrupted")),
    "first": Field(even),
    "settings": Field(settings(*RUN_SETTINGS, needed=("seed",))),
    "system": Field(or_null(text)),
    "sinks": Field(or_null(whole(8))),
}
MESSAGE = {
    "role": Field(one_of("user", "assistant")),
    "content": Field(text),
    "ids": Field(or_null(many(whole())), None),
    "runs": Field(or_null(many(run_of)), None),
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
    """The checked fields of an object. Other fields are ignored, or an error with `exactly`.

    `name` is that of the object in messages, if it has one.
    """
    if not isinstance(row, dict):
        raise must_be(name, row, "an object")
    prefix = f"{name}." if name else ""
    if exactly:
        for key in row:
            if key not in table:
                raise FieldError(
                    f"{prefix}{quoted(key)} is not a field of it: there are {', '.join(table)}"
                )
    values: dict[str, Any] = {}
    for key, field in table.items():
        if key in row or field.default is MISSING:
            values[key] = field.check(prefix + key, row.get(key, MISSING))
        else:
            values[key] = field.default
    return values


def message_of(row: dict[str, Any], number: int, name: str = "") -> Message:
    """The message of a conversation with this number, from 0. Raises FieldError."""
    values = fields_of(MESSAGE, row, name)
    prefix = f"{name}." if name else ""
    expected = "assistant" if number % 2 else "user"
    if values["role"] != expected:
        raise FieldError(
            f"{prefix}role is {values['role']!r}: user and assistant must alternate, "
            f"and this must be {expected}"
        )
    ids = None
    if values["ids"] is not None:
        ids = tuple(values["ids"])
    runs = tuple(values["runs"] or ())
    if values["role"] == "user" and (ids is not None or runs):
        field = "runs" if ids is None else "ids"
        raise FieldError(f"{prefix}{field} belongs to an answer, but this is a message of the user")
    message = Message(values["role"], values["content"], ids, runs)
    problem = runs_fault(message, number)
    if problem:
        raise FieldError(f"{prefix}{problem}")
    return message


def runs_fault(message: Message, number: int) -> str:
    """Why the runs of an answer cannot have generated its tokens; empty if they can.

    `number` is that of the answer in the conversation.
    """
    before = 0
    for i, run in enumerate(message.runs):
        if run.first >= number:
            return (
                f"runs[{i}].first is {run.first}: it must be less than {number}, "
                "the number of messages before this one"
            )
        if message.ids is not None and not before <= run.start <= len(message.ids):
            return (
                f"runs[{i}].start is {run.start}: it must be from {before} to "
                f"{len(message.ids)}, the number of tokens"
            )
        before = run.start
    return ""
