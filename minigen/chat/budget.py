"""The resources of one rendering of a chat template: steps, and bytes of the values that it makes.

A template is an untrusted program. Every loop iteration, call, filter, operator and output pays
here for what it is about to do, before it does it. The limits are counts, not seconds, so that a
template either always renders or never does. They grow with the conversation, and amount to a few
seconds and some tens of megabytes at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

STEPS = 2_000_000  # evaluated nodes of the program; about a second
BYTES = 16 << 20  # of all values that are made, even if they are freed again
OUTPUT = 4 << 20  # characters of the rendered text
GROWTH = 64  # more steps and bytes for each byte of the conversation, and characters / 4
DEPTH = 100  # lists within lists
LOOK = 4  # steps for each value that is read
NODE = 64  # bytes of any value, roughly
ESCAPED = 6  # characters at most for one byte of text in quotes
PAD = 1000  # columns at most of a formatted number or text


class LimitError(Exception):
    """A template exceeds a limit; the message says which."""


class RefusalError(Exception):
    """The template called raise_exception."""


class Budget:
    """The remaining steps and bytes of one rendering, for a conversation of `given` bytes."""

    def __init__(self, given: int = 0) -> None:
        self.most_steps = STEPS + GROWTH * given
        self.most_bytes = BYTES + GROWTH * given
        self.most_output = OUTPUT + GROWTH // 4 * given
        self.steps = self.most_steps
        self.bytes = self.most_bytes

    def step(self, count: int = 1) -> None:
        """Pays for steps. Raises LimitError if not enough are left."""
        self.steps -= count
        if self.steps < 0:
            raise LimitError(f"takes more than {self.most_steps:,} steps")

    def make(self, size: int) -> None:
        """Pays for bytes that are about to be made or searched. Raises LimitError as `step`."""
        self.bytes -= size
        if self.bytes < 0:
            raise LimitError(f"makes more than {self.most_bytes >> 20} MB of text and lists")
        if size > 127:
            self.step(size >> 7)

    def check_output(self, text: str) -> None:
        if len(text) > self.most_output:
            raise LimitError(f"writes more than {self.most_output:,} characters")

    def look(self, value: Any) -> int:
        """Pays for reading all of a value, as a comparison does; returns its total bytes."""
        if type(value) is str:
            self.step(len(value) >> 7)
            return size_of(value)
        return self.weigh(value).bytes

    def show(self, value: Any) -> int:
        """Pays for a value as text; returns the most bytes that it can have."""
        size = size_of(value) if isinstance(value, str) else ESCAPED * self.look(value)
        self.make(size)
        return size

    def weigh(self, value: Any) -> Weight:
        """Pays for reading a value and all values in it, and returns their total weight.

        A value that occurs twice counts twice, as when it is written or compared.
        """
        weight = Weight()
        pending = [(value, 0)]
        while pending:
            value, depth = pending.pop()
            if depth > DEPTH:
                raise LimitError(f"reads lists that are nested more than {DEPTH} deep")
            self.step(LOOK)
            weight.add(value, depth)
            if type(value) is str:
                continue
            pending += [(inner, depth + 1) for inner in contents(value)]
            if isinstance(value, int):
                self.step(value.bit_length() ** 2 >> 16)  # for its decimal digits
            elif isinstance(value, range):
                self.step(len(value))  # for searching it
        return weight


class Weight:
    """Totals over a value and the values in it: their bytes, their number, and their depths."""

    def __init__(self) -> None:
        self.bytes = self.nodes = self.depths = 0

    def add(self, value: Any, depth: int) -> None:
        self.bytes += size_of(value)
        self.nodes += 1
        self.depths += depth


def size_of(value: Any) -> int:
    """The bytes of a value without the values in it, roughly."""
    if isinstance(value, str):
        width = 1 if value.isascii() else 4
        return NODE + width * len(value)
    if isinstance(value, int):
        return NODE + (value.bit_length() >> 3)
    if isinstance(value, list | tuple | dict):
        return NODE + 8 * len(value)
    return NODE


def contents(value: Any) -> Iterable[Any]:
    """The values in a value, which are written with it."""
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | range | Iterator):
        return value  # lists, tuples and the views of a dict
    if type(value).__name__ == "PublicNamespace":  # the only object of Jinja that shows its values
        attributes: dict[str, Any] = getattr(value, "_Namespace__attrs", {})
        return attributes.values()
    return ()


CURRENT: ContextVar[Budget] = ContextVar("CURRENT")  # of the current rendering


@contextmanager
def spending(budget: Budget) -> Iterator[None]:
    """Templates that are rendered in this block pay from this budget."""
    token = CURRENT.set(budget)
    try:
        yield
    finally:
        CURRENT.reset(token)
