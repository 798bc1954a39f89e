"""Where a chat template runs, and what it may call: the same there as in transformers.

A template comes from the hub, so it is not trusted: Jinja's sandbox keeps it from code and files. It can still waste
time, as any loop in a loop can. Jinja is imported when the first template is compiled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2

_LARGEST = 10_000_000  # characters, items or bits that one `*` or `**` of a template may make


class RefusalError(Exception):
    """The template's own raise_exception."""


def _refuse(message: object) -> None:
    raise RefusalError(str(message))


def _to_json(
    x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """In place of Jinja's own, which escapes for HTML."""
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


_day: ContextVar[date | None] = ContextVar("_day", default=None)  # what a template is told, in place of now


@contextmanager
def on_day(day: date | None) -> Iterator[None]:
    """Within it a template that asks for the time is told this day; None: the time that it is."""
    token = _day.set(day)
    try:
        yield
    finally:
        _day.reset(token)


def _strftime_now(format: str) -> str:  # noqa: A002, a template may name it
    return (_day.get() or datetime.now()).strftime(format)


class _MakeDict:
    """`dict` without its class, whose methods would change what the sandbox keeps from changing."""

    def __call__(self, *args: Any, **named: Any) -> dict[Any, Any]:
        return dict(*args, **named)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def _check_size(operator: str, left: Any, right: Any) -> None:
    """Else ten characters of a template take all memory, before a limit of the system says so."""
    size = 0
    if operator == "**" and isinstance(left, int) and isinstance(right, int):
        size = left.bit_length() * right
    elif operator == "*":
        for many, times in ((left, right), (right, left)):
            if isinstance(many, str | list | tuple) and isinstance(times, int):
                size = len(many) * times
    if size > _LARGEST:
        raise OverflowError(f"the result of {operator} would be too large")


def compile_template(source: str) -> jinja2.Template:
    """Raises jinja2.TemplateSyntaxError, or what Python itself says of a program that is too deep."""
    return _environment().from_string(source)


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    """The sandbox, with what transformers adds to it."""
    from jinja2 import nodes
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.runtime import Context
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """{% generation %}: the marks for training around an answer. What is set within stays within."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    class Sandbox(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"*", "**"})

        def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
            _check_size(operator, left, right)
            return super().call_binop(context, operator, left, right)

    class PublicNamespace(Namespace):
        """Names of Python's own inner workings would let a template imitate other objects."""

        def __setitem__(self, name: str, value: Any) -> None:
            if isinstance(name, str) and name.startswith("_"):
                raise SecurityError(f"a namespace of a chat template may not have the name {name!r}")
            super().__setitem__(name, value)

    def namespace(*args: Any, **named: Any) -> Namespace:
        made = PublicNamespace()
        for name, value in dict(*args, **named).items():
            made[name] = value
        return made

    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _strftime_now}
    environment.globals |= {"dict": _MakeDict(), "namespace": namespace}
    return environment
