"""One chat, its model and the file that it is saved to after each turn."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, cast

from minigen.errors import MinigenError

from ..display.tables import wrapped
from ..display.terminal import harmless
from ..model_arguments import load_draft, load_model
from .stream import size_of

if TYPE_CHECKING:
    from minigen.chat.engine import Chat
    from minigen.chat.session import Session
    from minigen.generation.settings import ChatSettings


def data_folder() -> Path:
    """Where sessions and the history of lines are kept."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "minigen"


def free_session_path() -> Path:
    """A file for a new session, by the time and the process."""
    name = f"{time.strftime('%Y-%m-%d-%H%M%S')}-{os.getpid()}"
    folder = data_folder() / "sessions"
    return next(path for i in count(1) if not (path := folder / f"{name}{f'-{i}' if i > 1 else ''}.jsonl").exists())


def identity(path: Path) -> tuple[int, int, int]:
    """What tells whether a file was written by somebody else meanwhile."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


class ChatApp:
    """`session` says how to begin; `path` is where it is saved, None where it is not.

    `ask` reads a line of the user's that begins with the given text; None where nobody can be asked.
    """

    def __init__(self, args: argparse.Namespace, session: Session, path: Path | None, source: str | None) -> None:
        self.args, self.path = args, path
        self.terminal = sys.stdout.isatty()
        self.markdown = bool(args.markdown)
        self.ask: Callable[[str], str] | None = None
        self.warned = ""  # the kind of the last warning: each is given once
        self.written: tuple[int, int, int] | None = None  # what the session's file was when it was read or written
        if path is not None and path.exists():
            self.written = identity(path)
        self.chat = self.load(session, source)

    def load(self, session: Session, source: str | None) -> Chat:
        """The session's conversation with a model, which is the session's own or another. Changes nothing on error."""
        from minigen.chat.engine import Chat
        from minigen.chat.session import tokenizer_key

        self.args.model = source
        model = load_model(self.args)
        talk, tokenizer, plain = session.conversation, tokenizer_key(model), self.args.plain or session.plain
        if session.tokenizer != tokenizer:
            talk = talk.without_ids()
        elif session.model != source:
            talk = talk.without_runs()
        context = session.context if session.model == source or self.args.context is not None else None
        settings = cast("ChatSettings", session.settings)
        overflow, draft = session.overflow, load_draft(self.args)
        chat = Chat(model, talk, settings=settings, overflow=overflow, context=context, plain=plain, draft=draft)
        _ = chat.used  # whether the template takes the conversation, and the tokenizer its text, is known now
        if session.tokenizer not in ("", tokenizer) and talk.spoken:
            self.note("this model reads other tokens than the one before: its answers are given to it as text")
        # A folder is found again from wherever the session is resumed.
        self.source = str(Path(source).absolute()) if source is not None and Path(source).is_dir() else source
        self.tokenizer = tokenizer
        return chat

    def session(self) -> Session:
        """What is to be saved."""
        from minigen.chat.session import Session

        chat = self.chat
        settings, policy = dict(chat.settings), chat.window.policy
        return Session(chat.conversation, self.source, self.tokenizer, policy, chat.context, settings, chat.plain)

    def save(self) -> None:
        """Saves where the session is to be saved; the first failure is told, and ends the attempts."""
        from minigen.chat.session import save_session

        if self.path is None or (not self.chat.conversation.spoken and self.written is None):
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists() and identity(self.path) != self.written:
                taken, self.path = self.path, free_session_path()
                self.note(f"{taken} was changed by another program: this chat goes on in {self.path}")
            save_session(self.session(), self.path)
            self.written = identity(self.path)
        except (MinigenError, OSError) as error:
            reason = error if isinstance(error, MinigenError) else f"cannot write {self.path}: {error.strerror}"
            self.note(f"{reason}; from here on this chat is not saved (/save FILE saves it elsewhere)")
            self.path = None

    def begin_anew(self) -> None:
        """What was said so far stays in its file; what comes goes to another."""
        if self.path is not None and self.written is not None:
            self.path, self.written = free_session_path(), None

    # -- what is shown ------------------------------------------------------------------------------------------------
    def note(self, text: str) -> None:
        """A remark of the program's: dim on a terminal, on stderr elsewhere, so that stdout has answers alone."""
        if not self.terminal:
            print(f"minigen: {text}", file=sys.stderr)
            return
        text = wrapped(f"[{harmless(text)}]", size_of(sys.stdout)[0])
        print(text if os.environ.get("TERM") == "dumb" else f"\x1b[2m{text}\x1b[0m", flush=True)


def tell_plain(app: ChatApp) -> None:
    """Says once how a model is talked to that has no template."""
    if app.chat.format.plain and not app.chat.plain:
        app.note('this model has no chat template: it goes on with a plain transcript, "User: ... Assistant: ..."')
