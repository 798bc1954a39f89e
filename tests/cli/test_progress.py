"""The bar: on a terminal, after a while, and gone without a trace."""

from __future__ import annotations

import logging
import os
import pty
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module

import pytest

Terminal = Callable[[], AbstractContextManager[bytearray]]


@pytest.fixture
def terminal(read_all: Callable[[int], bytes]) -> Terminal:
    """In its block stderr is a terminal; what was written there is known when the block has ended."""

    @contextmanager
    def open_terminal() -> Iterator[bytearray]:
        parent, child = pty.openpty()
        written = bytearray()
        with os.fdopen(child, "w") as stream, pytest.MonkeyPatch.context() as patch:
            patch.setenv("TERM", "xterm")
            patch.setattr(sys, "stderr", stream)
            yield written
        written += read_all(parent)
        os.close(parent)

    return open_terminal


def plain(written: bytearray) -> bytes:
    return re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", written)


def test_the_bar_shows_after_a_while_and_goes(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = import_module("minigen.cli.display.progress")
    monkeypatch.setattr(progress, "DELAY", 0)
    with terminal() as written, progress.Bar("animals [x]", "items") as bar:
        bar.start(2)
        bar.step()
        bar.timer.join()
        bar.progress.refresh()
    shown = plain(written)
    assert b"animals [x]" in shown
    assert b"1/2 items" in shown
    assert written.endswith(b"\x1b[2K")  # it clears its line when it goes


def test_a_caller_may_count(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    progress = import_module("minigen.cli.display.progress")
    monkeypatch.setattr(progress, "DELAY", 0)
    with terminal() as written, progress.Bar("a.txt", "tokens") as bar:
        bar.reach(0, 50)
        bar.reach(30, 50)
        bar.timer.join()
        bar.progress.refresh()
    assert b"30/50 tokens" in plain(written)


def test_a_short_run_shows_no_bar(terminal: Terminal) -> None:
    progress = import_module("minigen.cli.display.progress")
    with terminal() as written:
        with progress.Bar("animals", "items") as bar:
            bar.start(1)
            bar.step()
        print("end", file=sys.stderr, flush=True)
    assert written == b"end\r\n"


def test_what_nobody_can_count_shows_its_seconds(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = import_module("minigen.cli.display.progress")
    monkeypatch.setattr(progress, "DELAY", 0)
    with terminal() as written, progress.Busy("merging [x]") as busy:
        busy.timer.join()
        busy.progress.refresh()
    assert re.search(rb"merging \[x\] \S+ 0:00:0\d", plain(written))
    assert written.endswith(b"\x1b[2K")


def test_where_there_is_no_terminal_it_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = import_module("minigen.cli.display.progress")
    with progress.Busy("merging"):
        pass
    assert capsys.readouterr().err == ""  # it was done at once
    monkeypatch.setattr(progress, "DELAY", 0)
    with progress.Busy("merging") as busy:
        busy.timer.join()
    assert capsys.readouterr().err == "minigen: merging, which may take a while\n"


def test_a_warning_of_a_thread_comes_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one of the main thread, which must let the handler go."""
    logger = logging.getLogger("minigen")
    monkeypatch.setattr(logger, "handlers", [])
    import_module("minigen.cli.display.warning_lines").warn_on_stderr()
    logger.warning("first")
    thread = threading.Thread(target=logger.warning, args=("second",), daemon=True)
    thread.start()
    thread.join(30)
    assert capsys.readouterr().err == "minigen: warning: first\nminigen: warning: second\n"
