"""One chat on a terminal or a pipe: lines come in, answers and notes go out, the session is saved after each turn."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from minigen.errors import MinigenError

from .chat_stream import AnswerView, size_of
from .model_arguments import load_model
from .progress import Bar
from .tables import wrapped

if TYPE_CHECKING:
    from minigen.chat.engine import Answer, Chat
    from minigen.chat.session import Session


def data_folder() -> Path:
    """Where sessions and the history of lines are kept."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "minigen"


def new_session_path() -> Path:
    return data_folder() / "sessions" / f"{time.strftime('%Y-%m-%d-%H%M%S')}-{os.getpid()}.jsonl"


@contextmanager
def ctrl_c_asks(stop: threading.Event) -> Iterator[None]:
    """The first Ctrl-C in the block only asks for an end, so that nothing is left half done; the second insists."""

    def ask(signum: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def no_echo() -> Iterator[None]:
    """What is typed while an answer comes is read afterwards, not shown in the middle of it."""
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
    quiet[3] &= ~(termios.ECHO | termios.ECHOCTL)
    termios.tcsetattr(handle, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)


class ChatApp:
    """`session` says how to begin; `path` is where it is saved, None where it is not.

    `ask` reads a line of the user's that begins with the given text; None where nobody can be asked.
    """

    def __init__(self, args: argparse.Namespace, session: Session, path: Path | None) -> None:
        self.args, self.path = args, path
        self.terminal = sys.stdout.isatty()
        self.markdown = bool(args.markdown)
        self.ask: Callable[[str], str] | None = None
        self.source: str | None = session.model
        self.saved = True  # nothing has been said yet that is not in the file
        self.chat = self.load(session)

    def load(self, session: Session) -> Chat:
        """The model of the session, ready to go on with it."""
        from minigen.chat.engine import Chat
        from minigen.chat.session import tokenizer_key

        self.args.model = session.model
        model = load_model(self.args)
        conversation = session.conversation
        self.tokenizer = tokenizer_key(model)
        if session.tokenizer != self.tokenizer and conversation.spoken:
            if session.tokenizer:
                self.note("this model reads other tokens than the one before: its answers are given to it as text")
            conversation = conversation.without_ids()
        return Chat(
            model,
            conversation,
            settings=session.settings,
            overflow=session.overflow,
            context=session.context,
            plain=self.args.plain,
        )

    def session(self) -> Session:
        """What is to be saved."""
        from minigen.chat.session import Session

        chat = self.chat
        return Session(
            chat.conversation, self.source, self.tokenizer, chat.window.policy, chat.context, dict(chat.settings)
        )

    def save(self) -> None:
        """Saves where the session is to be saved; the first failure is told, and ends the attempts."""
        from minigen.chat.session import save_session

        self.saved = False
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_session(self.session(), self.path)
            self.saved = True
        except (MinigenError, OSError) as error:
            reason = error if isinstance(error, MinigenError) else f"cannot write {self.path}: {error.strerror}"
            self.note(f"{reason}; from here on this chat is not saved (/save FILE saves it elsewhere)")
            self.path = None

    def begin_anew(self) -> None:
        """What was said so far stays in its file; what comes goes to another."""
        if self.path is not None and self.chat.conversation.spoken:
            self.path = new_session_path()
            count = 2
            while self.path.exists():
                self.path = self.path.with_stem(f"{new_session_path().stem}-{count}")
                count += 1

    # -- what is shown ------------------------------------------------------------------------------------------------
    def note(self, text: str) -> None:
        """A remark of the program's: dim on a terminal, on stderr elsewhere, so that stdout has answers alone."""
        if not self.terminal:
            print(f"minigen: {text}", file=sys.stderr)
            return
        text = wrapped(f"[{text}]", size_of(sys.stdout)[0])
        print(text if os.environ.get("TERM") == "dumb" else f"\x1b[2m{text}\x1b[0m", flush=True)

    def show(self, answer: Answer) -> None:
        """Streams an answer to its end or to Ctrl-C, keeps it, and saves."""
        if answer.left_out:
            self.note(
                f"the window is full: the {answer.left_out} oldest messages are left out from here on "
                "(the session keeps them)"
            )
        view = AnswerView(sys.stdout, terminal=self.terminal, markdown=self.markdown)
        stop = threading.Event()
        reading = Reading(stop)
        answer.on_read = reading.show
        try:
            with ctrl_c_asks(stop), no_echo(), reading:
                for piece in answer:
                    reading.done()
                    view.write(piece)
                    if stop.is_set():
                        break
        except Stopped:
            pass
        finally:
            view.finish()
            message = answer.finish()
            self.save()
        run = message.runs[-1]
        if run.finish == "interrupted":
            self.note("stopped: /continue goes on, /regen tries again")
        elif run.finish == "length":
            bound = self.chat.window.bound
            full = bound is not None and len(answer.row.prompt) + run.tokens >= bound
            self.note(
                f"the window of {bound} tokens is full: /undo, /clear or /set overflow roll"
                if full
                else f"cut at {run.tokens} tokens: /continue goes on, /set max_tokens N allows more"
            )
        elif not answer.text.text.strip():
            begun = answer.begun.content.strip()
            self.note("the model adds nothing" if begun else "the model ends its answer at once: /regen tries again")
        warning = self.chat.warning
        if warning is not None and warning.split("%")[-1] != self.warned:
            self.note(warning)
        self.warned = warning.split("%")[-1] if warning else ""

    warned = ""  # the kind of the last warning: each is given once


class Stopped(Exception):  # noqa: N818  (no error: the user asked for it)
    """Ctrl-C while a prompt is read."""


class Reading:
    """A bar while a long prompt is read, which goes when the first piece of the answer comes."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self.bar: Bar | None = None

    def __enter__(self) -> Reading:
        self.bar = Bar("reading", "tokens").__enter__()
        return self

    def __exit__(self, *of_error: object) -> None:
        self.done()

    def show(self, done: int, total: int) -> None:
        if self.stop.is_set():
            raise Stopped
        if self.bar is not None:
            self.bar.reach(done, total)

    def done(self) -> None:
        if self.bar is not None:
            self.bar.__exit__(None, None, None)
            self.bar = None
