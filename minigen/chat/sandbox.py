"""The sandbox in which chat templates run. What they may call works as in transformers.

A template comes from the hub, so it is not trusted. Jinja's sandbox denies it code and files; this
one also limits its time and memory. Each list of statements pays for its nodes when it is entered,
so that loops and recursion end. Operations that take longer for larger values pay first, see
`prices`. Whatever is not in the tables of `allowed` is refused by name. Importing this imports
Jinja.
"""

from __future__ import annotations

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
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS as JINJA_TESTS
from jinja2.utils import Cycler, Joiner, Namespace, pass_context

from minigen.chat.allowed import FILTERS, METHODS, TESTS
from minigen.chat.arithmetic import arithmetic
from minigen.chat.budget import NODE, LimitError
from minigen.chat.metering import OWN_FILTERS, Metering
from minigen.chat.prices import Price, brace_formatted, budget, compared, copied, free
from minigen.chat.template_globals import CALLABLE, GLOBALS, to_json

Function = Callable[..., Any]

LONGEST = 1 << 17  # characters of a template; those of real models have some 10,000 at most


def compile_template(source: str) -> jinja2.Template:
    """Compiles a template.

    Raises jinja2.TemplateSyntaxError, LimitError, or Python's own errors for code nested too deep.
    """
    if len(source) > LONGEST:
        raise LimitError(f"has more than {LONGEST:,} characters")
    sandbox = environment()
    tree = Metering().visit(sandbox.parse(source))
    return sandbox.from_string(tree)


INTERNAL = ("_loop_vars", "_block_vars")  # arguments that compiled templates add to some calls
# Objects of Jinja that may be called, and their methods.
OBJECTS = (Macro, LoopContext, Undefined, BlockReference, Cycler, Joiner)


# -- paying --
@pass_context
def pay_for_output(context: Context, value: Any) -> Any:
    """Called with each value before it is written."""
    budget().show(value)
    return value


def result_of(value: Any) -> Any:
    """What a filter returned. An iterator is read into a list first.

    Otherwise a template could nest generators in generators until Python itself breaks.
    """
    if not isinstance(value, Iterator):
        return value
    items = list(value)
    copied(items)
    return (item for item in items)


def with_length(value: Any) -> Any:
    """An argument; an iterator is read into a list, so that it has a length."""
    if isinstance(value, Iterator) and not isinstance(value, LoopContext):
        return list(value)
    return value


def expect_no_loop(values: Iterable[Any]) -> None:
    """Refuses the variable `loop`: a function that iterates over it would not pay for its items."""
    if any(isinstance(value, LoopContext) for value in values):
        raise SecurityError("a chat template may pass its loop only to a macro")


def priced(function: Function, price: Price) -> Function:
    """The function of a filter or test, after its price is paid."""
    jinja_args = 1 if hasattr(function, "jinja_pass_arg") else 0  # such as the context

    @wraps(function)
    def paying(*args: Any, **named: Any) -> Any:
        given = [with_length(arg) for arg in args[jinja_args:]]
        budget().step()
        if price is not free:
            expect_no_loop((*given, *named.values()))
        price(*given, **named)
        return result_of(function(*args[:jinja_args], *given, **named))

    return paying


def refused(kind: str, name: str) -> Function:
    """A filter or test of Jinja that no real template uses."""

    def refusing(*args: Any, **named: Any) -> Any:
        raise SecurityError(f"the {kind} {name!r} is not one that a chat template may use")

    return refusing


class Generation(Extension):
    """{% generation %}, which marks answers for training. Variables set inside stay inside."""

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
        """Allows only methods that are in the tables of `allowed`, and those of Jinja's objects."""
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
            brace_formatted(value.__self__, *args, **named)
            return wrapped(*args, **named)

        paying.is_priced = True  # type: ignore[attr-defined]
        return paying

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(argument, tuple):  # a key of a dict, which is hashed
            compared(argument)
        return super().getitem(obj, argument)

    def call(__self, __context: Context, __obj: Any, *args: Any, **named: Any) -> Any:  # noqa: N805
        """Pays for a call.

        The parameters are named as Jinja's own, so that `named` may have any name.
        """
        budget().step(1 + len(args) + len(named))
        budget().make(4 * NODE)
        args = tuple(with_length(arg) for arg in args)
        owner = getattr(__obj, "__self__", None)
        price = None
        if isinstance(__obj, types.BuiltinMethodType | types.MethodType):  # the latter: of Markup
            price = method_price(owner, __obj.__name__)
        if not isinstance(__obj, Macro):
            expect_no_loop((*args, *named.values()))
        if price is not None:
            price(owner, *args, **{k: value for k, value in named.items() if k not in INTERNAL})
        elif isinstance(owner, LoopContext):  # loop.changed compares
            compared(*args)
        elif not is_callable(__obj):
            raise SecurityError(f"a chat template may not call {type(__obj).__name__!r} objects")
        return super().call(__context, __obj, *args, **named)


def is_callable(obj: Any) -> bool:
    """Whether a template may call an object that is not a method with a price."""
    if isinstance(obj, OBJECTS) or obj in CALLABLE:
        return True
    return bool(getattr(obj, "is_priced", False))


def method_price(obj: Any, name: str) -> Price | None:
    """The price of a method; None if it is not in the tables."""
    for kind, prices in METHODS.items():
        if isinstance(obj, kind):
            return prices.get(name)
    return None


@lru_cache(maxsize=1)
def environment() -> Sandbox:
    """The sandbox, with what transformers adds to Jinja.

    It is not optimized: what would be computed at compile time would not be paid for.
    """
    sandbox = Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[Generation, loopcontrols],
        optimized=False,
    )
    sandbox.finalize = pay_for_output
    sandbox.globals = dict(GLOBALS)
    sandbox.filters = priced_table("filter", {**JINJA_FILTERS, "tojson": to_json}, FILTERS)
    sandbox.filters |= OWN_FILTERS
    sandbox.tests = priced_table("test", dict(JINJA_TESTS), TESTS)
    return sandbox


def priced_table(kind: str, functions: dict[str, Any], prices: dict[str, Price]) -> dict[str, Any]:
    """All functions of a kind by name: those with a price pay it, all others are refused."""
    table: dict[str, Any] = {}
    for name, function in functions.items():
        if name in prices:
            table[name] = priced(function, prices[name])
        else:
            table[name] = refused(kind, name)
    return table
