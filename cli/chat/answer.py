"""An answer on its way: streamed, stopped by Ctrl-C, kept and saved."""

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
    """Whether an end was asked for. No threading.Event: a second signal within its `set` would wait for the first."""

    def __init__(self) -> None:
        self.asked = False
        self.impatient_at = time.monotonic() + PATIENCE  # until the answer begins


@contextmanager
def ctrl_c_asks(stop: Stop) -> Iterator[None]:
    """Ctrl-C in the block only asks for an end, however often it comes, so that nothing is left half done.

    Where an answer takes long to begin, as a chat template may, Ctrl-C gives it up.
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
    """A terminal that does not echo: ECHO what is typed, ECHOCTL a ^C. It is read all the same."""
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
    """Streams the answer that `begin` makes to its end or to Ctrl-C, keeps it, and saves.

    Raises KeyboardInterrupt after Ctrl-C where nobody is there to say what comes next.
    """
    stop = Stop()
    with ctrl_c_asks(stop):
        answer = begin()
        stop.impatient_at = math.inf
        before(app, answer)
        view = AnswerView(sys.stdout, terminal=app.terminal, markdown=app.markdown)
        reading = Reading(stop)
        answer.reader.on_read = reading.show
        streaming = ExitStack()  # entered with the first piece: what is said before it may be shown at once
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
    """An answer that goes from a keyboard's chat through a pipe, as to `tee`, is on the screen before what follows."""
    if sys.stdin is not None and sys.stdin.isatty() and not sys.stdout.isatty():
        time.sleep(0.03)


def before(app: ChatApp, answer: Answer) -> None:
    """What there is to say before anything is left out of the window."""
    if answer.left_out:
        app.note(
            f"the window is full: the {answer.left_out} oldest messages are left out from here on "
            "(the session keeps them)"
        )
    window = app.chat.window
    if window.policy == "sinks":
        warn(app, len(answer.row.prompt) + answer.run.settings["max_tokens"])


def after(app: ChatApp, answer: Answer) -> None:
    """How the answer ended, where that is not as usual, and whether the window is nearly full."""
    run, bound = app.chat.conversation.last_answer().runs[-1], app.chat.window.bound
    if run.finish == "interrupted":
        app.note("stopped: /continue goes on, /regen tries again")
    elif run.finish == "length" and bound is not None and len(answer.row.prompt) + run.tokens >= bound:
        app.note(f"the window of {bound} tokens is full: /undo, /clear or /set overflow roll")
    elif run.finish == "length":
        app.note(f"cut at {run.tokens} tokens: /continue goes on, /set max_tokens N allows more")
    elif not answer.text.text.strip():
        begun = answer.begun.content.strip()
        app.note("the model adds nothing" if begun else "the model ends its answer at once: /regen tries again")
    if app.chat.window.policy != "sinks":
        warn(app, None)


def warn(app: ChatApp, used: int | None) -> None:
    """The warning of the window, once for each kind."""
    kind, text = app.chat.warning(used) or ("", "")
    if kind not in ("", app.warned):
        app.note(text)
    app.warned = kind


class Stopped(Exception):  # noqa: N818  (no error: the user asked for it)
    """Ctrl-C while a prompt is read."""


class Reading:
    """A bar while a long prompt is read, which goes when the first piece of the answer comes."""

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
