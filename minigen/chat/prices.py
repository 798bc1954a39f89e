"""What a method or filter of a chat template pays before it is called.

A price is a function of the arguments that pays from the budget for the work, and for the largest result there can be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from string import Formatter
from typing import Any

from minigen.chat.budget import CURRENT, NODE, PAD, Budget, LimitError, size_of

Price = Callable[..., None]

SET = 100  # characters at most of an argument that is a set of characters, and of one that is put in again and again
LARGEST = 10_000_000  # characters, items or bits that one `*` or `**` may make
LINE_ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
# As Python reads it: % (key) flags width .precision, a length that means nothing, and the kind.
PERCENT = re.compile(r"%(?:\([^()]*\))?[#0\- +]*(\*|\d+)?(?:\.(\*|\d*))?[hlL]?(.?)", re.DOTALL)


def budget() -> Budget:
    return CURRENT.get()


# -- prices, for texts --
def same(value: Any, *args: Any, **named: Any) -> None:
    """A result no larger than its arguments, in one pass over them."""
    budget().make(sum(budget().show(arg) for arg in (value, *args, *named.values())))


def cased(value: Any, *args: Any) -> None:
    """A letter may have three in the other case."""
    budget().make(3 * budget().show(value))


def quoted(value: Any) -> None:
    """HTML writes one character as five."""
    budget().make(5 * budget().show(value))


def stripped(value: Any, chars: Any = None) -> None:
    if isinstance(chars, str) and len(chars) > SET:
        raise LimitError(f"strips more than {SET} characters")
    same(value)


def replaced(value: Any, old: Any, new: Any, count: Any = None) -> None:
    size = budget().show(value)
    if isinstance(value, str) and isinstance(old, str) and isinstance(new, str):
        size += value.count(old) * (size_of(new) - NODE)
    budget().make(size)


def split(value: str, sep: Any = None, maxsplit: Any = -1) -> None:
    parts = value.count(sep) + 1 if isinstance(sep, str) and sep else len(value) // 2 + 1
    budget().make(size_of(value) + parts * NODE)


def split_lines(value: str, keepends: Any = False) -> None:
    budget().make(size_of(value) + lines_in(value) * NODE)


def joined(items: Any, between: Any = "", attribute: Any = None) -> None:
    every = size_of(between) - NODE if isinstance(between, str) else 0
    parts = len(items) if isinstance(items, Sequence) else 1
    budget().step(parts)
    size = every * parts
    for item in [items] if isinstance(items, str) or not isinstance(items, Sequence) else items:
        size += size_of(item) - NODE if isinstance(item, str) else budget().show(item)
    budget().make(size)


def join_method(between: str, items: Any) -> None:
    joined(items, between)


def indented(value: Any, width: Any = 4, first: Any = False, blank: Any = False) -> None:
    columns = len(width) if isinstance(width, str) else width
    lines = lines_in(value) if isinstance(value, str) else 1
    budget().make(budget().show(value) + lines * (NODE + short(columns)))


def lines_in(text: str) -> int:
    return sum(map(text.count, LINE_ENDS)) + 1


def short(columns: Any) -> int:
    """A number of columns that is put into a text many times."""
    if isinstance(columns, int) and columns > SET:
        raise LimitError(f"indents by more than {SET} columns")
    return 4 * max(columns, 0) if isinstance(columns, int) else 0


def as_json(
    value: Any,
    ensure_ascii: Any = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: Any = False,
) -> None:
    """A line for each value, as deep as it lies."""
    between = [text for text in separators or () if isinstance(text, str)]
    pads = [len(text) for text in (*between, indent) if isinstance(text, str)]
    columns = short(max([*pads, indent if isinstance(indent, int) else 0]))
    weight = budget().weigh(value)
    budget().make(6 * weight.bytes + columns * (weight.nodes + weight.depths))


def percent(text: str, values: Any) -> None:
    """`text % values`: no width and no precision beyond reason, however it is written."""
    formatted(text, "%", budget().show(values))
    for width, precision, kind in PERCENT.findall(text):
        if kind == "(":
            raise LimitError("formats with a key that has parentheses")
        if "*" in (width, precision) or any(
            digits and int(digits[:9]) > PAD for digits in (width, precision)
        ):
            raise LimitError(f"formats to more than {PAD} columns")


def formatted(text: str, mark: str, biggest: int) -> None:
    """Pays for a text in which each mark becomes the biggest of the values, with so many columns around it."""
    budget().make(budget().show(text) + text.count(mark) * (biggest + 4 * PAD))


def filter_format(text: Any, *args: Any, **named: Any) -> None:
    if not isinstance(text, str):
        budget().show(text)
    percent(str(text), named or args)


def braces(text: str, *args: Any, **named: Any) -> None:
    """`text.format(...)`, as above."""
    formatted(text, "{", budget().show([*args, *named.values()]))
    for _, field, spec, _ in Formatter().parse(text):
        if field is None:
            continue
        if "{" in (spec or "") or any(
            int(digits[:9]) > PAD for digits in re.findall(r"\d+", spec or "")
        ):
            raise LimitError(f"formats to more than {PAD} columns")


# -- prices, for numbers --
def arithmetic(operator: str, left: Any, right: Any) -> None:
    """One of + - * / // % ** on any two values."""
    pay = budget()
    pay.step()
    if operator == "+" and type(left) is type(right) is str:  # most of what templates do
        pay.make(4 * (len(left) + len(right)))
    elif operator == "%" and isinstance(left, str):
        percent(left, right)
    elif isinstance(left, int) and isinstance(right, int):
        whole(operator, left.bit_length(), right if operator == "**" else right.bit_length())
    elif operator == "*":
        for many, times in ((left, right), (right, left)):
            if isinstance(many, str | list | tuple) and isinstance(times, int):
                largest(operator, len(many) * times)
                pay.make((size_of(many) - NODE) * max(times, 0))
    elif operator == "+" and isinstance(left, str | list | tuple):
        pay.make(
            6 * (size_of(left) + size_of(right))
            if hasattr(left, "__html__")
            else size_of(left) + size_of(right)
        )


def whole(operator: str, left: int, right: int) -> None:
    """Whole numbers of so many bits; for ** the right one itself."""
    digits = max(left * right, 0) // 30  # of the result, as Python holds it
    if operator in ("*", "**"):
        largest(operator, left * right if operator == "**" else left + right)
    budget().step(int(digits**1.6 if operator == "**" else digits / 30) >> 8)
    budget().make(4 * digits if operator == "**" else (left + max(right, 0)) >> 3)


def largest(operator: str, size: int) -> None:
    """One result in characters, items or bits."""
    if size > LARGEST:
        raise OverflowError(f"the result of {operator} would be too large")


def rounded(value: Any, precision: Any = 0, method: Any = "common") -> None:
    if isinstance(precision, int) and abs(precision) > SET:
        raise LimitError(f"rounds to more than {SET} digits")
    looked(value)


# -- prices, for lists --
def free(*args: Any, **named: Any) -> None:
    """What takes no longer for a long list than for a short one."""
    budget().step()


def looked(*args: Any, **named: Any) -> None:
    """All that is in the arguments is compared, or hashed."""
    budget().step(sum(budget().look(arg) for arg in (*args, *named.values())) >> 7)


def found(where: Any, *args: Any) -> None:
    """One thing of many, by a key that is hashed."""
    looked(*args)


def listed(items: Any, *args: Any, **named: Any) -> None:
    """Another list with the same items, or some of them."""
    budget().make(NODE * len(items) if hasattr(items, "__len__") else NODE)
    budget().step(len(items) if hasattr(items, "__len__") else 1)


def sorted_(items: Any, *args: Any, **named: Any) -> None:
    """Each item is compared about twenty times, with a million of them."""
    listed(items)
    budget().step(20 * budget().weigh(items).nodes + (20 * budget().weigh(items).bytes >> 7))


def summed(items: Any, attribute: Any = None, start: Any = 0) -> None:
    """Numbers cost little; lists are made again with each that is added."""
    times = 1 if isinstance(start, int | float) else len(items) if hasattr(items, "__len__") else 1
    listed(items)
    budget().make(budget().look(items) * times)
