"""Ctrl-C in a loop, which ends it even if Python drops the KeyboardInterrupt."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class CtrlC:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.pressed = False


@contextmanager
def noted_ctrl_c() -> Iterator[CtrlC]:
    """In the block, Ctrl-C raises KeyboardInterrupt as usual, and is noted as well.

    Python drops an exception that is raised in a finalizer or in a callback of a weak reference,
    such as the one after each import, and only prints it. A loop that looks at `pressed` ends all
    the same. What would be printed is suppressed, since the user caused it.
    """
    ctrl_c = CtrlC()
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield ctrl_c
        return
    report = sys.unraisablehook

    def note(signum: int, frame: FrameType | None) -> None:
        ctrl_c.pressed = True
        raise KeyboardInterrupt

    def report_others(dropped: Any) -> None:
        if dropped.exc_type is not KeyboardInterrupt:
            report(dropped)

    sys.unraisablehook = report_others
    signal.signal(signal.SIGINT, note)
    try:
        yield ctrl_c
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = report
