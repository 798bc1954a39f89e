"""The prices of operators, and of filters and tests that compute with numbers."""

from __future__ import annotations

from typing import Any

from minigen.chat.budget import NODE, LimitError, size_of
from minigen.chat.prices import MOST_REPEATED, budget, compared, percent_formatted

LARGEST = 10_000_000  # characters, items or bits that one `*` or `**` may make


def arithmetic(operator: str, left: Any, right: Any) -> None:
    """One of + - * / // % ** on any two values."""
    pay = budget()
    pay.step()
    if operator == "+" and type(left) is type(right) is str:  # most of what templates do
        pay.make(4 * (len(left) + len(right)))
    elif operator == "%" and isinstance(left, str):
        percent_formatted(left, right)
    elif operator == "**" and isinstance(left, int) and isinstance(right, int):
        power(left.bit_length(), right)
    elif isinstance(left, int) and isinstance(right, int):
        integers(operator, left.bit_length(), right.bit_length())
    elif operator == "*":
        repeated(left, right)
        repeated(right, left)
    elif operator == "+" and isinstance(left, str | list | tuple):
        size = size_of(left) + size_of(right)
        if hasattr(left, "__html__"):  # escapes the other text
            size *= 6
        pay.make(size)


def divided(value: Any, number: Any = 2) -> None:
    """The remainder of a division."""
    arithmetic("%", value, number)


def repeated(value: Any, times: Any) -> None:
    """`value * times`; nothing unless that repeats a text or a list."""
    if isinstance(value, str | list | tuple) and isinstance(times, int):
        check_result("*", len(value) * times)
        budget().make((size_of(value) - NODE) * max(times, 0))


def power(bits: int, exponent: int) -> None:
    """`**` of an integer of so many bits."""
    check_result("**", bits * exponent)
    digits = max(bits * exponent, 0) // 30  # of the result, as Python stores it
    budget().step(int(digits**1.6) >> 8)
    budget().make(4 * digits)


def integers(operator: str, left_bits: int, right_bits: int) -> None:
    """Any other operator on two integers of so many bits."""
    if operator == "*":
        check_result(operator, left_bits + right_bits)
    digits = left_bits * right_bits // 30  # of products of digits
    budget().step(int(digits / 30) >> 8)
    budget().make((left_bits + right_bits) >> 3)


def check_result(operator: str, size: int) -> None:
    """Raises OverflowError for a result of too many characters, items or bits."""
    if size > LARGEST:
        raise OverflowError(f"the result of {operator} would be too large")


def rounded(value: Any, precision: Any = 0, method: Any = "common") -> None:
    if isinstance(precision, int) and abs(precision) > MOST_REPEATED:
        raise LimitError(f"rounds to more than {MOST_REPEATED} digits")
    compared(value)
