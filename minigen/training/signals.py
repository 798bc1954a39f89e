"""Ctrl-C and SIGTERM as a request to stop after the current step."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


class StopRequest:
    """Whether a signal has asked the run to stop."""

    def __init__(self) -> None:
        self.received = False

    @contextlib.contextmanager
    def at_signals(self, on_request: Callable[[], None]) -> Iterator[None]:
        """In this block the first Ctrl-C or SIGTERM is a request; a second one interrupts.

        `on_request` is called at the first one. Outside of the main thread, which alone can handle
        signals, the block does nothing.
        """

        def handle(number: int, frame: Any) -> None:
            if self.received:
                raise KeyboardInterrupt
            self.received = True
            on_request()

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous: dict[signal.Signals, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, handle)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
