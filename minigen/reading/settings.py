"""Settings and the values that they take: declared beside each other, checked in one way, refused in one wording."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from numbers import Integral, Real
from typing import Any

from minigen.errors import UsageError, shown

LARGEST = 2**62  # a whole number of a setting is smaller, so that sums of some fit into 64 bits


@dataclass(frozen=True)
class Range:
    """The numbers that a setting takes: finite, within the limits that are given. `str` says which."""

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
        if not given:
            return kind if self.whole else "a finite number"
        return f"{kind} {' and '.join(given)}"

    def take(self, value: Any) -> float | None:
        """The value as a plain int or float; None where it is no such number."""
        number = plain_number(value, self.whole)
        if number is None:
            return None
        fits = (
            (self.least is None or number >= self.least)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
            and (self.most is None or number <= self.most)
        )
        return number if fits else None

    def check(self, name: str, value: Any) -> float:
        """The value as a plain int or float. Raises UsageError where it is no such number."""
        number = self.take(value)
        if number is None:
            raise wrong(name, value, str(self))
        return number


def plain_number(value: Any, whole: bool) -> float | None:
    """The value as a plain finite number, int where `whole`; None where it is none (a bool, a string, NaN, ...)."""
    if isinstance(value, bool):
        return None
    if whole:
        return int(value) if isinstance(value, Integral) else None
    if not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:  # an int beyond float64
        return None
    return number if isfinite(number) else None


def whole_where_equal(value: Any) -> Any:
    """A float that is a whole number as an int: files have 1e3 and 4.0 for those."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def wrong(name: str, value: Any, wanted: str) -> UsageError:
    return UsageError(f"{name} is {shown(value)}: it must be {wanted}")


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
    """A field of a dataclass: its default, which gives its type, its help, and what values it takes.

    Args:
        choices: of a text, the only ones.
        least, above, below, most: the limits of a number, or of each in a tuple.
        key: its name for users where Python has no such name.
        free: it may change on resume.
        shape: it is a part of the model, which `--from` brings.
    """
    limits = Range(type(default) is int, least, above, below, most)
    about = {"help": text, "choices": tuple(choices), "range": limits, "key": key, "free": free, "shape": shape}
    return dataclasses.field(default=default, metadata=about)


def checked(name: str, field: dataclasses.Field[Any], value: Any) -> Any:
    """The value in the type of a field that `setting` made. Raises UsageError for one that it cannot have.

    Args:
        name: what users call the setting.
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
            raise UsageError(f"{name} is {shown(value)}: choose {', '.join(filter(None, choices))}")
        return value
    if limits.whole:
        value = whole_where_equal(value)
    number = limits.check(name, value)
    if limits.whole and abs(number) >= LARGEST:
        raise wrong(name, value, f"a whole number < {LARGEST}")
    return number


def checked_list(name: str, field: dataclasses.Field[Any], value: Any) -> tuple[Any, ...]:
    """As `checked`, of texts, or of as many numbers as the default has. One value may stand for a list of one."""
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
