"""Generating an answer: it is streamed, can be stopped by Ctrl-C, and is saved."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from ..display.progress import Bar
from ..display.warning_lines import held_warnings
from .app import ChatApp
from .stream import AnswerView

if TYPE_CHECKING:
    from minigen.chat.engine import Answer

PATIENCE = 0.5  # seconds; what began sooner is stopped at its first piece


class Stop:
    """Whether the user asked to stop.

    Not a threading.Event: a second signal during its `set` would wait for the first.
    """

    def __init__(self) -> None:
        self.asked = False
        self.impatient_at = time.monotonic() + PATIENCE  # until the answer begins


@contextmanager
def ctrl_c_asks(stop: Stop) -> Iterator[None]:
    """In the block Ctrl-C only asks to stop, however often it comes, so that all work is finished.

    If an answer takes long to begin, because of its chat template, Ctrl-C gives it up.
    """

    def ask(signum: int, frame: FrameType | None) -> None:
        stop.asked = True
        if time.monotonic() > stop.impatient_at:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def terminal_without(*modes: str) -> Iterator[None]:
    """Turn off a terminal's echo of typed keys (ECHO) or of ^C (ECHOCTL); input is still read."""
    try:
        import termios
    except ImportError:  # a system without
        yield
        return
    try:
        handle = sys.stdin.fileno()
        before = termios.tcgetattr(handle)
    except (AttributeError, OSError, ValueError, termios.error):  # no terminal
        yield
        return
    quiet = termios.tcgetattr(handle)
    for mode in modes:
        quiet[3] &= ~getattr(termios, mode)
    termios.tcsetattr(handle, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)


def show(app: ChatApp, begin: Callable[[], Answer]) -> None:
    """Stream the answer that `begin` starts to its end or to Ctrl-C, and save the session.

    Raises KeyboardInterrupt after Ctrl-C if there is no terminal to continue on.
    """
    stop = Stop()
    with ctrl_c_asks(stop):
        answer = begin()
        stop.impatient_at = math.inf
        before(app, answer)
        view = AnswerView(sys.stdout, terminal=app.terminal, markdown=app.markdown)
        reading = Reading(stop)
        answer.reader.on_read = reading.show
        streaming = ExitStack()  # delays warnings, from the first piece on
        try:
            with reading, streaming:
                for number, piece in enumerate(answer):
                    if number == 0:
                        reading.done()
                        streaming.enter_context(held_warnings())
                        streaming.callback(view.finish)
                    view.write(piece)
                    if stop.asked:
                        break
        except Stopped:
            pass
        finally:
            answer.finish()
            app.save()
        let_it_arrive()
        after(app, answer)
    if stop.asked and app.ask is None:
        raise KeyboardInterrupt


def let_it_arrive() -> None:
    """Wait until an answer that goes through a pipe, such as to `tee`, is on the screen."""
    if sys.stdin is not None and sys.stdin.isatty() and not sys.stdout.isatty():
        time.sleep(0.03)


def before(app: ChatApp, answer: Answer) -> None:
    """Report the messages that no longer fit into the window."""
    if answer.left_out:
        app.note(
            f"the window is full: the {answer.left_out} oldest messages are left out from now on "
            "(they stay in the session)"
        )
    window = app.chat.window
    if window.policy == "sinks":
        warn(app, len(answer.row.prompt) + answer.run.settings["max_tokens"])


def after(app: ChatApp, answer: Answer) -> None:
    """Report how the answer ended, if it was cut or empty, and if the window is nearly full."""
    run = app.chat.conversation.last_answer().runs[-1]
    bound = app.chat.window.bound
    window_is_full = bound is not None and len(answer.row.prompt) + run.tokens >= bound
    if run.finish == "interrupted":
        app.note("stopped: /continue resumes the answer, /regen tries again")
    elif run.finish == "length" and window_is_full:
        app.note(f"the window of {bound} tokens is full: /undo, /clear or /set overflow roll")
    elif run.finish == "length":
        app.note(f"cut at {run.tokens} tokens: /continue resumes, /set max_tokens N allows more")
    elif not answer.text.text.strip():
        if answer.begun.content.strip():
            app.note("the model adds nothing")
        else:
            app.note("the answer is empty: /regen tries again")
    if app.chat.window.policy != "sinks":
        warn(app, None)


def warn(app: ChatApp, used: int | None) -> None:
    """Show the warning of the window, once for each kind."""
    kind, text = app.chat.warning(used) or ("", "")
    if kind not in ("", app.warned):
        app.note(text)
    app.warned = kind


class Stopped(Exception):  # noqa: N818  (not an error: the user asked for it)
    """Ctrl-C while the prompt is processed."""


class Reading:
    """A bar while a long prompt is processed; it is erased when the answer begins."""

    def __init__(self, stop: Stop) -> None:
        self.stop = stop
        self.bar: Bar | None = None
        self.opened = ExitStack()

    def __enter__(self) -> Reading:
        self.bar = self.opened.enter_context(Bar("reading", "tokens"))
        return self

    def __exit__(self, *of_error: object) -> None:
        self.done()

    def show(self, done: int, total: int) -> None:
        if self.stop.asked:
            raise Stopped
        if self.bar is not None:
            self.bar.reach(done, total)

    def done(self) -> None:
        self.bar = None
        self.opened.close()
