"""The library's warnings, one line each on stderr; those that come while a text streams wait for its end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class WarningLines(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes each warning at once, or keeps it while a text is on its way to the screen."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(logging.Formatter("minigen: warning: %(message)s"))
        self.held: list[logging.LogRecord] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.held is None:
            super().emit(record)
        else:
            self.held.append(record)

    def hold(self) -> None:
        self.held = self.held or []

    def let_go(self) -> None:
        held, self.held = self.held or [], None
        for record in held:
            self.emit(record)


def warn_on_stderr() -> None:
    """The library's warnings go to what is stderr now."""
    logging.getLogger("minigen").handlers[:] = [WarningLines()]


@contextmanager
def held_warnings() -> Iterator[None]:
    """In the block a text streams: a line in the middle of it would break a word, on a screen that shows both."""
    handlers = [h for h in logging.getLogger("minigen").handlers if isinstance(h, WarningLines)]
    for handler in handlers:
        handler.hold()
    try:
        yield
    finally:
        for handler in handlers:
            handler.let_go()
