"""The bar: on a terminal, after a while, and gone without a trace."""

from __future__ import annotations

import os
import pty
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

import pytest


@contextmanager
def terminal() -> Iterator[Callable[[], bytes]]:
    """stderr is a terminal; what has been written to it is returned by a call."""
    parent, child = pty.openpty()
    with os.fdopen(child, "w") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "xterm")
        patch.setattr(sys, "stderr", stream)
        yield lambda: os.read(parent, 65536)
    os.close(parent)


def test_the_bar_shows_after_a_while_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    progress = import_module("minigen.cli.progress")
    monkeypatch.setattr(progress, "DELAY", 0)
    with terminal() as written:
        with progress.Bar("animals [x]", "items") as bar:
            bar.start(2)
            bar.step()
            bar.timer.join()
            bar.progress.refresh()
        shown = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", written())
    assert b"animals [x]" in shown
    assert b"1/2 items" in shown


def test_a_caller_may_count(monkeypatch: pytest.MonkeyPatch) -> None:
    progress = import_module("minigen.cli.progress")
    monkeypatch.setattr(progress, "DELAY", 0)
    with terminal() as written:
        with progress.Bar("a.txt", "tokens") as bar:
            bar.reach(0, 50)
            bar.reach(30, 50)
            bar.timer.join()
            bar.progress.refresh()
        shown = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", written())
    assert b"30/50 tokens" in shown


def test_a_short_run_shows_no_bar() -> None:
    progress = import_module("minigen.cli.progress")
    with terminal() as written:
        with progress.Bar("animals", "items") as bar:
            bar.start(1)
            bar.step()
        print("end", file=sys.stderr, flush=True)
        assert written() == b"end\r\n"
