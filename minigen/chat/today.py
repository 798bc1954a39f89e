"""The date that chat templates see: today, or the day on which a run began."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, datetime

_day: ContextVar[date | None] = ContextVar("_day", default=None)


@contextmanager
def on_day(day: date | None) -> Iterator[None]:
    """In this block templates see this day; None: the current time."""
    token = _day.set(day)
    try:
        yield
    finally:
        _day.reset(token)


def told_time() -> date | datetime:
    """The time that a template sees."""
    return _day.get() or datetime.now()
