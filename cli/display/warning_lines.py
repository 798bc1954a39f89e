"""The library's warnings, one line each on stderr, delayed while a text is streamed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class WarningLines(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes each warning at once, or keeps it while a text is streamed to the screen."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(logging.Formatter("minigen: warning: %(message)s"))
        self.delayed: list[logging.LogRecord] | None = None  # None: write at once

    def emit(self, record: logging.LogRecord) -> None:
        if self.delayed is None:
            super().emit(record)
        else:
            self.delayed.append(record)

    def hold(self) -> None:
        """Delay warnings from now on."""
        if self.delayed is None:
            self.delayed = []

    def write_delayed(self) -> None:
        """Write the delayed warnings, and the next ones at once."""
        delayed, self.delayed = self.delayed or [], None
        for record in delayed:
            self.emit(record)


def warn_on_stderr() -> None:
    """Send the library's warnings to the present stderr."""
    logging.getLogger("minigen").handlers[:] = [WarningLines()]


@contextmanager
def held_warnings() -> Iterator[None]:
    """Delay warnings during the block, in which a text is streamed.

    On a screen that shows both, a warning would break the text in the middle of a word.
    """
    handlers = []
    for handler in logging.getLogger("minigen").handlers:
        if isinstance(handler, WarningLines):
            handler.hold()
            handlers.append(handler)
    try:
        yield
    finally:
        for handler in handlers:
            handler.write_delayed()
