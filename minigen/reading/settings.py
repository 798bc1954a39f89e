"""Settings and their values: declared in one place, checked and refused in one way."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from numbers import Integral, Real
from typing import Any

from minigen.errors import UsageError, shown

LARGEST = 2**62  # whole numbers are smaller, so that sums of a few fit into 64 bits


@dataclass(frozen=True)
class Range:
    """The numbers that a setting accepts: finite, within the given limits. `str` describes them."""

    whole: bool = False
    least: float | None = None
    above: float | None = None
    below: float | None = None
    most: float | None = None

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        if self.least is not None and self.most is not None:
            return f"{kind} from {self.least} to {self.most}"
        limits = {">=": self.least, ">": self.above, "<": self.below, "<=": self.most}
        given = [f"{sign} {limit}" for sign, limit in limits.items() if limit is not None]
        if given:
            return f"{kind} {' and '.join(given)}"
        if self.whole:
            return kind
        return "a finite number"

    def take(self, value: Any) -> float | None:
        """The value as a plain int or float; None if it is not such a number."""
        number = plain_number(value, self.whole)
        if number is None:
            return None
        fits = (
            (self.least is None or number >= self.least)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
            and (self.most is None or number <= self.most)
        )
        if not fits:
            return None
        return number

    def check(self, name: str, value: Any) -> float:
        """The value as a plain int or float. Raises UsageError if it is not such a number."""
        number = self.take(value)
        if number is None:
            raise wrong(name, value, str(self))
        return number


def plain_number(value: Any, whole: bool) -> float | None:
    """The value as a finite float, or int if `whole`; None for anything else, bool included."""
    if isinstance(value, bool):
        return None
    if whole:
        if isinstance(value, Integral):
            return int(value)
        return None
    if not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:  # an int beyond float64
        return None
    if not isfinite(number):
        return None
    return number


def whole_where_equal(value: Any) -> Any:
    """A float that is a whole number as an int: files may write 1e3 or 4.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def wrong(name: str, value: Any, expected: str) -> UsageError:
    """The error for a setting with a value that it does not accept."""
    return UsageError(f"{name} is {shown(value)}: it must be {expected}")


def setting(
    default: Any,
    text: str,
    *,
    choices: Sequence[str] = (),
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    most: float | None = None,
    key: str = "",
    free: bool = False,
    shape: bool = False,
) -> Any:
    """A field of a dataclass that is a setting. Its default gives its type.

    Args:
        default: The default value.
        text: The help.
        choices: The only values of a string.
        least, above, below, most: The limits of a number, or of each in a tuple.
        key: Its name for users, if that cannot be a name in Python.
        free: Whether it may change on resume.
        shape: Whether it is a part of the model, which `--from` brings.
    """
    limits = Range(type(default) is int, least, above, below, most)
    about = {
        "help": text,
        "choices": tuple(choices),
        "range": limits,
        "key": key,
        "free": free,
        "shape": shape,
    }
    return dataclasses.field(default=default, metadata=about)


def checked(name: str, field: dataclasses.Field[Any], value: Any) -> Any:
    """The value of a setting, in its type.

    Args:
        name: Its name for users.
        field: Its field, made by `setting`.
        value: The value to check.

    Raises UsageError: it does not accept that value.
    """
    default, limits, choices = field.default, field.metadata["range"], field.metadata["choices"]
    if isinstance(default, tuple):
        return checked_list(name, field, value)
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise wrong(name, value, "true or false")
        return value
    if isinstance(default, str):
        if not isinstance(value, str):
            raise wrong(name, value, "a text")
        if choices and value not in choices:
            named = ", ".join(choice for choice in choices if choice)
            raise UsageError(f"{name} is {shown(value)}: choose {named}")
        return value
    if limits.whole:
        value = whole_where_equal(value)
    number = limits.check(name, value)
    if limits.whole and abs(number) >= LARGEST:
        raise wrong(name, value, f"a whole number < {LARGEST}")
    return number


def checked_list(name: str, field: dataclasses.Field[Any], value: Any) -> tuple[Any, ...]:
    """As `checked`, for lists: strings, or as many numbers as the default has.

    A single value may stand for a list of one.
    """
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    count = len(field.default)  # type: ignore[arg-type]
    if count == 0:
        if not all(isinstance(x, str) for x in values):
            raise wrong(name, value, "a list of names")
        return values
    if len(values) != count:
        raise wrong(name, value, f"{count} numbers")
    limits: Range = field.metadata["range"]
    return tuple(limits.check(name, x) for x in values)
