"""What one rendering of a chat template may use: steps, and bytes of what it makes.

A template is a stranger's program. Every loop turn, call, filter, operator and output pays here for what it is about to
do, before it does it. The limits are counts, not seconds, so that a template either always renders or never does; they
grow with the conversation, and come to a few seconds and some tens of megabytes at the very most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

STEPS = 2_000_000  # nodes of a program that are evaluated; about a second
BYTES = 16 << 20  # of all values made, whether they are still there or not
OUTPUT = 4 << 20  # characters of the rendered text
GROWTH = 64  # steps, and bytes, beside these for each byte of the conversation; a quarter as many characters
DEPTH = 100  # lists within lists
LOOK = 4  # steps for each value that is looked at
NODE = 64  # bytes that any value takes, about
ESCAPED = 6  # characters at most that one byte of text takes where it is shown quoted
PAD = 1000  # columns at most of a number or text that is formatted


class LimitError(Exception):
    """A template that does more than it may: which limit it met."""


class RefusalError(Exception):
    """The template's own raise_exception."""


class Budget:
    """What is left of the steps and bytes of one rendering, of a conversation of so many bytes."""

    def __init__(self, given: int = 0) -> None:
        self.most_steps, self.most_bytes = STEPS + GROWTH * given, BYTES + GROWTH * given
        self.most_output = OUTPUT + GROWTH // 4 * given
        self.steps, self.bytes = self.most_steps, self.most_bytes

    def step(self, count: int = 1) -> None:
        """Pays for work. Raises LimitError where there is none left."""
        self.steps -= count
        if self.steps < 0:
            raise LimitError(f"takes more than {self.most_steps:,} steps")

    def make(self, size: int) -> None:
        """Pays for so many bytes that are about to be made, or to be looked through."""
        self.bytes -= size
        if self.bytes < 0:
            raise LimitError(f"makes more than {self.most_bytes >> 20} MB of text and lists")
        if size > 127:
            self.step(size >> 7)

    def check_output(self, text: str) -> None:
        if len(text) > self.most_output:
            raise LimitError(f"writes more than {self.most_output:,} characters")

    def look(self, value: Any) -> int:
        """Pays for looking at all of a value, as a comparison does; returns its bytes, those of lists in it too."""
        if type(value) is str:
            self.step(len(value) >> 7)
            return size_of(value)
        return self.weigh(value).bytes

    def show(self, value: Any) -> int:
        """Pays for a value as text; returns the bytes that it has at most."""
        size = size_of(value) if isinstance(value, str) else ESCAPED * self.look(value)
        self.make(size)
        return size

    def weigh(self, value: Any) -> Weight:
        """A value with all that is in it, one that is there twice counted twice: so it is shown, and compared."""
        weight = Weight()
        waiting = [(value, 0)]
        while waiting:
            value, depth = waiting.pop()
            if depth > DEPTH:
                raise LimitError(f"looks at lists more than {DEPTH} deep")
            self.step(LOOK)
            weight.add(value, depth)
            if type(value) is str:
                continue
            waiting += [(inner, depth + 1) for inner in contents(value)]
            if isinstance(value, int):
                self.step(value.bit_length() ** 2 >> 16)  # written in decimal digits
            elif isinstance(value, range):
                self.step(len(value))  # searched
        return weight


class Weight:
    """The bytes of a value, the values in it, and how deep they lie, all together."""

    def __init__(self) -> None:
        self.bytes = self.nodes = self.depths = 0

    def add(self, value: Any, depth: int) -> None:
        self.bytes += size_of(value)
        self.nodes += 1
        self.depths += depth


def size_of(value: Any) -> int:
    """The bytes that a value takes by itself."""
    if isinstance(value, str):
        return NODE + len(value) * (1 if value.isascii() else 4)
    if isinstance(value, int):
        return NODE + (value.bit_length() >> 3)
    return NODE + 8 * len(value) if isinstance(value, list | tuple | dict) else NODE


def contents(value: Any) -> Iterable[Any]:
    """What is in a value and shown with it."""
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | range | Iterator):
        return value  # lists, tuples and the views of a dict
    # Of Jinja's own objects a namespace alone shows what is in it.
    return (
        getattr(value, "_Namespace__attrs", {}).values()
        if type(value).__name__ == "PublicNamespace"
        else ()
    )


CURRENT: ContextVar[Budget] = ContextVar("CURRENT")  # of the rendering that is under way


@contextmanager
def spending(budget: Budget) -> Iterator[None]:
    """What is rendered in the block pays from this budget."""
    token = CURRENT.set(budget)
    try:
        yield
    finally:
        CURRENT.reset(token)
