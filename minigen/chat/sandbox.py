"""Where a chat template runs, and what it may call: the same there as in transformers.

A template comes from the hub, so it is not trusted. Jinja's sandbox keeps it from code and files; here it is kept from
time and memory too. Each list of statements pays for its nodes when it is entered, so that no loop and no recursion is
without end; what costs more for a larger value pays before it is done, see `prices`; and what is not in the tables of
`allowed` is refused by its name. Importing this imports Jinja.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, wraps
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.parser import Parser
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.tests import TESTS as JINJA_TESTS
from jinja2.utils import Cycler, Joiner, Namespace, pass_context

from minigen.chat.allowed import FILTERS, METHODS, TESTS
from minigen.chat.budget import NODE, LimitError, RefusalError
from minigen.chat.metering import OWN_FILTERS, Metering
from minigen.chat.prices import Price, arithmetic, braces, budget, free, listed, looked
from minigen.chat.today import told_time

Function = Callable[..., Any]

LONGEST = (
    1 << 17
)  # characters of a template; those of real models have some tens of thousands at most


def compile_template(source: str) -> jinja2.Template:
    """Raises jinja2.TemplateSyntaxError, LimitError, or what Python itself says of a program that is too deep."""
    if len(source) > LONGEST:
        raise LimitError(f"has more than {LONGEST:,} characters")
    sandbox = environment()
    tree = Metering().visit(sandbox.parse(source))
    return sandbox.from_string(tree)


# -- what a template finds --
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
    """In place of Jinja's own, which escapes for HTML."""
    return json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def strftime_now(format: str) -> str:  # noqa: A002, a template may name it
    if isinstance(format, str) and (len(format) > 100 or any(c.isdigit() for c in format)):
        raise LimitError("asks for the date in more than 100 characters, or with a width")
    budget().make(16 * NODE)
    return told_time().strftime(format)


class MakeDict:
    """`dict` without its class, whose methods would change what the sandbox keeps from changing."""

    def __call__(self, *args: Any, **named: Any) -> dict[Any, Any]:
        looked(*args)
        return dict(*args, **named)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        looked(*args)
        return dict.fromkeys(*args)


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
INNER = ("_loop_vars", "_block_vars")  # arguments that the compiled template adds to some calls
# Jinja's own, which may be called, with their methods.
OBJECTS = (Macro, LoopContext, Undefined, BlockReference, Cycler, Joiner)


# -- paying --
@pass_context
def shown(context: Context, value: Any) -> Any:
    """Each value on its way into the text."""
    budget().show(value)
    return value


def made(value: Any) -> Any:
    """What a filter returned. One that gives its items one by one gives them from a list: else generators could be
    stacked on generators until Python itself breaks.
    """
    if not isinstance(value, Iterator):
        return value
    items = list(value)
    listed(items)
    return (item for item in items)


def at_once(value: Any) -> Any:
    """An argument whose price asks how long it is."""
    return (
        list(value) if isinstance(value, Iterator) and not isinstance(value, LoopContext) else value
    )


def expect_no_loop(values: Iterable[Any]) -> None:
    """The variable `loop` gives what is left of its loop to whoever goes through it, and nobody would pay."""
    if any(isinstance(value, LoopContext) for value in values):
        raise SecurityError("a chat template may give its loop to nothing but a macro")


def priced(function: Function, price: Price) -> Function:
    """The function of a filter or test, which pays first."""
    before = (
        1 if hasattr(function, "jinja_pass_arg") else 0
    )  # Jinja's own argument, such as the context

    @wraps(function)
    def paying(*args: Any, **named: Any) -> Any:
        own, given = args[:before], [at_once(arg) for arg in args[before:]]
        budget().step()
        if price is not free:
            expect_no_loop((*given, *named.values()))
        price(*given, **named)
        return made(function(*own, *given, **named))

    return paying


def refused(kind: str, name: str) -> Function:
    """A filter or test of Jinja's that no real template uses."""

    def refusing(*args: Any, **named: Any) -> Any:
        raise SecurityError(f"the {kind} {name!r} is not one that a chat template may use")

    return refusing


class Generation(Extension):
    """{% generation %}: the marks for training around an answer. What is set within stays within."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        arithmetic(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Of texts, lists and dicts the methods in the table; of any other object no method but Jinja's own."""
        if not super().is_safe_attribute(obj, attr, value):
            return False
        if not callable(value) or isinstance(obj, (*OBJECTS, Namespace)) or value in CALLABLE:
            return True
        return method_price(obj, attr) is not None

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None or value.__name__ != "format":
            return None

        budget().make(16 * NODE)

        def paying(*args: Any, **named: Any) -> str:
            braces(value.__self__, *args, **named)
            return wrapped(*args, **named)

        paying.is_priced = True  # type: ignore[attr-defined]
        return paying

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(argument, tuple):  # the key of a dict is hashed
            looked(argument)
        return super().getitem(obj, argument)

    def call(__self, __context: Context, __obj: Any, *args: Any, **named: Any) -> Any:  # noqa: N805
        """As Jinja's own: these names leave all others to the named arguments."""
        budget().step(1 + len(args) + len(named))
        budget().make(4 * NODE)
        args = tuple(at_once(arg) for arg in args)
        owner = getattr(__obj, "__self__", None)
        is_method = isinstance(
            __obj, types.BuiltinMethodType | types.MethodType
        )  # the latter: of escaped texts
        price = method_price(owner, __obj.__name__) if is_method else None
        if not isinstance(__obj, Macro):
            expect_no_loop((*args, *named.values()))
        if price is not None:
            price(
                owner, *args, **{name: value for name, value in named.items() if name not in INNER}
            )
        elif isinstance(owner, LoopContext):  # loop.changed compares
            looked(*args)
        elif not (
            isinstance(__obj, OBJECTS) or __obj in CALLABLE or getattr(__obj, "is_priced", False)
        ):
            raise SecurityError(f"a chat template may not call {type(__obj).__name__!r} objects")
        return super().call(__context, __obj, *args, **named)


def method_price(obj: Any, name: str) -> Price | None:
    kind = next((kind for kind in METHODS if isinstance(obj, kind)), None)
    return None if kind is None else METHODS[kind].get(name)


@lru_cache(maxsize=1)
def environment() -> Sandbox:
    """The sandbox, with what transformers adds to Jinja. Nothing is worked out beforehand: who would pay?"""
    found = Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols], optimized=False
    )
    found.finalize = shown
    found.globals = dict(GLOBALS)
    filters: dict[str, Any] = {**JINJA_FILTERS, "tojson": to_json}
    tests: dict[str, Any] = {**JINJA_TESTS}
    found.filters = {name: refused("filter", name) for name in filters}
    found.filters |= {name: priced(filters[name], price) for name, price in FILTERS.items()}
    found.filters |= OWN_FILTERS
    found.tests = {name: refused("test", name) for name in tests}
    found.tests |= {name: priced(tests[name], price) for name, price in TESTS.items()}
    return found
