"""The functions that a chat template can call by name. Importing this imports Jinja."""

from __future__ import annotations

import json
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.sandbox import safe_range
from jinja2.utils import Cycler, Joiner, Namespace

from minigen.chat.budget import NODE, LimitError, RefusalError
from minigen.chat.prices import budget, compared
from minigen.chat.today import told_time


def refuse(message: object) -> None:
    budget().show(message)
    raise RefusalError(str(message))


def to_json(
    x: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """Replaces Jinja's own filter, which escapes for HTML."""
    return json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def strftime_now(format: str) -> str:  # noqa: A002, a template may name it
    if isinstance(format, str) and (len(format) > 100 or any(c.isdigit() for c in format)):
        raise LimitError("formats the date in more than 100 characters, or with a width")
    budget().make(16 * NODE)
    return told_time().strftime(format)


class MakeDict:
    """`dict` without its class, through whose methods a template could change dicts."""

    def __call__(self, *args: Any, **named: Any) -> dict[Any, Any]:
        compared(*args)
        return dict(*args, **named)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        compared(*args)
        return dict.fromkeys(*args)


class PublicNamespace(Namespace):
    """A namespace without names that begin with _, which could imitate other objects."""

    def __setitem__(self, name: str, value: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"a namespace of a chat template may not have the name {name!r}")
        super().__setitem__(name, value)


def namespace(*args: Any, **named: Any) -> Namespace:
    result = PublicNamespace()
    for name, value in dict(*args, **named).items():
        result[name] = value
    return result


make_dict = MakeDict()
GLOBALS: dict[str, Any] = {
    "range": safe_range,
    "dict": make_dict,
    "cycler": Cycler,
    "joiner": Joiner,
    "namespace": namespace,
    "raise_exception": refuse,
    "strftime_now": strftime_now,
}
CALLABLE = (*GLOBALS.values(), make_dict.fromkeys)
