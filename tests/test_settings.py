"""The one way in which a setting is declared and checked."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from minigen.errors import UsageError
from minigen.reading.settings import Range, checked, setting

LIMITS = {
    "a number >= 0": (
        Range(least=0),
        [0, 0.0, 1e300, np.float32(2)],
        [-1e-9, math.nan, math.inf, True, "1", None],
    ),
    "a number > 0 and < 1": (Range(above=0, below=1), [0.5], [0, 1]),
    "a number from 0 to 1": (Range(least=0, most=1), [0, 1], [-0.1, 1.1]),
    "a number > 0 and <= 1": (Range(above=0, most=1), [1], [0]),
    "a whole number >= 1": (
        Range(whole=True, least=1),
        [1, np.int64(7), 2**70],
        [0, 1.0, 1.5, True],
    ),
    "a whole number": (Range(whole=True), [-3], [0.5]),
    "a finite number": (Range(), [-3], [math.inf, 10**400]),
}


@pytest.mark.parametrize("wanted", LIMITS)
def test_a_range_takes_what_it_says(wanted: str) -> None:
    numbers, taken, refused = LIMITS[wanted]
    assert str(numbers) == wanted
    for value in taken:
        assert numbers.check("x", value) == value
        assert type(numbers.take(value)) is (int if numbers.whole else float)
    for value in refused:
        assert numbers.take(value) is None
        with pytest.raises(UsageError) as caught:
            numbers.check("x", value)
        assert str(caught.value).startswith("x is ")
        assert str(caught.value).endswith(f": it must be {wanted}")


@dataclass(frozen=True)
class Made:
    steps: int = setting(1, "", least=1)
    rate: float = setting(0.5, "", above=0)
    pair: tuple[float, float] = setting((0.1, 0.2), "", least=0, below=1)
    names: tuple[str, ...] = setting((), "")
    kind: str = setting("", "", choices=("", "a", "b"))
    on: bool = setting(True, "")


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("steps", 1e3, 1000),
        ("rate", 2, 2.0),
        ("pair", [0, 0.5], (0.0, 0.5)),
        ("names", "x", ("x",)),
        ("kind", "b", "b"),
        ("on", False, False),
        ("steps", 0, "a whole number >= 1"),
        ("steps", 2**70, f"a whole number < {2**62}"),
        ("rate", "x", "a number > 0"),
        ("pair", [0.5], "2 numbers"),
        ("pair", [0.5, True], "a number >= 0 and < 1"),
        ("names", [1], "a list of names"),
        ("kind", 1, "a text"),
        ("on", 1, "true or false"),
    ],
)
def test_a_setting_has_the_type_of_its_default(name: str, value: Any, taken: Any) -> None:
    field = next(f for f in dataclasses.fields(Made) if f.name == name)
    if isinstance(taken, str) and taken != value:
        with pytest.raises(UsageError, match=rf"^its name is .*: it must be {taken}$"):
            checked("its name", field, value)
        return
    result = checked("its name", field, value)
    assert (result, type(result)) == (taken, type(taken))


def test_of_a_few_texts_one_is_chosen() -> None:
    field = next(f for f in dataclasses.fields(Made) if f.name == "kind")
    with pytest.raises(UsageError, match=r"^kind is 'c': choose a, b$"):
        checked("kind", field, "c")
