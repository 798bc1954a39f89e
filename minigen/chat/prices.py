"""What a method or filter of a chat template pays before it is called.

A price is a function of the same arguments. It pays from the budget for the work, and for the
largest result that is possible.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from string import Formatter
from typing import Any

from minigen.chat.budget import CURRENT, NODE, PAD, Budget, LimitError, size_of

Price = Callable[..., None]

MOST_REPEATED = 100  # characters of an argument that is a set of characters or is inserted often
LINE_ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
# As Python reads it: % (key) flags width .precision, a length that means nothing, and the kind.
PERCENT = re.compile(r"%(?:\([^()]*\))?[#0\- +]*(\*|\d+)?(?:\.(\*|\d*))?[hlL]?(.?)", re.DOTALL)


def budget() -> Budget:
    return CURRENT.get()


# -- prices, for texts --
def passed_through(value: Any, *args: Any, **named: Any) -> None:
    """A result no larger than its arguments, in one pass over them."""
    budget().make(sum(budget().show(arg) for arg in (value, *args, *named.values())))


def case_changed(value: Any, *args: Any) -> None:
    """A letter may become three in the other case."""
    budget().make(3 * budget().show(value))


def quoted(value: Any) -> None:
    """HTML writes one character as up to five."""
    budget().make(5 * budget().show(value))


def stripped(value: Any, chars: Any = None) -> None:
    if isinstance(chars, str) and len(chars) > MOST_REPEATED:
        raise LimitError(f"strips more than {MOST_REPEATED} characters")
    passed_through(value)


def replaced(value: Any, old: Any, new: Any, count: Any = None) -> None:
    size = budget().show(value)
    if isinstance(value, str) and isinstance(old, str) and isinstance(new, str):
        size += value.count(old) * text_size(new)
    budget().make(size)


def split_up(value: str, sep: Any = None, maxsplit: Any = -1) -> None:
    parts = len(value) // 2 + 1  # between white space
    if isinstance(sep, str) and sep:
        parts = value.count(sep) + 1
    budget().make(size_of(value) + parts * NODE)


def split_lines(value: str, keepends: Any = False) -> None:
    budget().make(size_of(value) + lines_in(value) * NODE)


def joined(items: Any, between: Any = "", attribute: Any = None) -> None:
    parts = items if isinstance(items, Sequence) else [items]
    budget().step(len(parts))
    size = 0
    if isinstance(between, str):
        size = text_size(between) * len(parts)
    if isinstance(items, str):
        parts = [items]  # its characters together
    for part in parts:
        if isinstance(part, str):
            size += text_size(part)
        else:
            size += budget().show(part)
    budget().make(size)


def join_method(between: str, items: Any) -> None:
    joined(items, between)


def indented(value: Any, width: Any = 4, first: Any = False, blank: Any = False) -> None:
    columns = len(width) if isinstance(width, str) else width
    lines = lines_in(value) if isinstance(value, str) else 1
    budget().make(budget().show(value) + lines * (NODE + indent_bytes(columns)))


def lines_in(text: str) -> int:
    """Lines of a text, or more: \\r\\n counts twice."""
    return sum(text.count(end) for end in LINE_ENDS) + 1


def text_size(text: str) -> int:
    """The bytes of a text as a part of another one."""
    return size_of(text) - NODE


def indent_bytes(columns: Any) -> int:
    """The bytes of so many columns that are inserted many times; 0 for what is not a number."""
    if not isinstance(columns, int):
        return 0
    if columns > MOST_REPEATED:
        raise LimitError(f"indents by more than {MOST_REPEATED} columns")
    return 4 * max(columns, 0)


def json_written(
    value: Any,
    ensure_ascii: Any = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: Any = False,
) -> None:
    """A line for each value, indented by its depth."""
    widths = [indent if isinstance(indent, int) else 0]
    for text in (*(separators or ()), indent):
        if isinstance(text, str):
            widths.append(len(text))
    columns = indent_bytes(max(widths))
    weight = budget().weigh(value)
    budget().make(6 * weight.bytes + columns * (weight.nodes + weight.depths))


def percent_formatted(text: str, values: Any) -> None:
    """`text % values`, with a limit on width and precision, however they are written."""
    pay_for_format(text, "%", budget().show(values))
    for width, precision, kind in PERCENT.findall(text):
        if kind == "(":
            raise LimitError("formats with a key that has parentheses")
        if "*" in (width, precision) or too_wide(width) or too_wide(precision):
            raise LimitError(f"formats to more than {PAD} columns")


def too_wide(digits: str) -> bool:
    """Whether a width or precision, which may be missing, is beyond the limit."""
    return digits != "" and int(digits[:9]) > PAD


def pay_for_format(text: str, mark: str, value_size: int) -> None:
    """Pays for a text in which every mark becomes the largest value, padded to the limit."""
    budget().make(budget().show(text) + text.count(mark) * (value_size + 4 * PAD))


def percent_filter(text: Any, *args: Any, **named: Any) -> None:
    if not isinstance(text, str):
        budget().show(text)
    percent_formatted(str(text), named or args)


def brace_formatted(text: str, *args: Any, **named: Any) -> None:
    """`text.format(...)`, with the same limits."""
    pay_for_format(text, "{", budget().show([*args, *named.values()]))
    for _, field, spec, _ in Formatter().parse(text):
        if field is None or not spec:
            continue
        numbers = re.findall(r"\d+", spec)
        if "{" in spec or any(too_wide(digits) for digits in numbers):
            raise LimitError(f"formats to more than {PAD} columns")


# -- prices, for lists --
def free(*args: Any, **named: Any) -> None:
    """For what takes no longer for a long list than for a short one."""
    budget().step()


def compared(*args: Any, **named: Any) -> None:
    """Everything in the arguments is compared, or hashed."""
    budget().step(sum(budget().look(arg) for arg in (*args, *named.values())) >> 7)


def keyed(container: Any, *args: Any) -> None:
    """One value of many, by a key that is hashed."""
    compared(*args)


def copied(items: Any, *args: Any, **named: Any) -> None:
    """Another list with the same items, or some of them."""
    count = length_of(items)
    budget().make(NODE * count)
    budget().step(count)


def length_of(items: Any) -> int:
    """The length of a value, 1 if it has none."""
    return len(items) if hasattr(items, "__len__") else 1


def sorted_(items: Any, *args: Any, **named: Any) -> None:
    """Each item is compared about twenty times, if there are a million."""
    copied(items)
    node_steps = 20 * budget().weigh(items).nodes
    budget().step(node_steps + (20 * budget().weigh(items).bytes >> 7))


def summed(items: Any, attribute: Any = None, start: Any = 0) -> None:
    """Numbers cost little; a list is copied for each one that is added."""
    times = 1 if isinstance(start, int | float) else length_of(items)
    copied(items)
    budget().make(budget().look(items) * times)
