"""The day that a chat template is told when it asks: today's, or another one that a run was begun on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, datetime

_day: ContextVar[date | None] = ContextVar("_day", default=None)


@contextmanager
def on_day(day: date | None) -> Iterator[None]:
    """Within it a template that asks for the time is told this day; None: the time that it is."""
    token = _day.set(day)
    try:
        yield
    finally:
        _day.reset(token)


def told_time() -> date | datetime:
    """What a template is told."""
    return _day.get() or datetime.now()
