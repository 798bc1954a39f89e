"""One chat, its model, and the file that it is saved to after each turn."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
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
    """The folder of sessions and of the history of typed lines."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "minigen"


def free_session_path() -> Path:
    """A file that does not exist yet, named after the time and the process."""
    name = f"{time.strftime('%Y-%m-%d-%H%M%S')}-{os.getpid()}"
    folder = data_folder() / "sessions"
    path = folder / f"{name}.jsonl"
    number = 1
    while path.exists():
        number += 1
        path = folder / f"{name}-{number}.jsonl"
    return path


def identity(path: Path) -> tuple[int, int, int]:
    """Changes when another program writes the file."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


class ChatApp:
    """A chat as the commands see it.

    `ask` lets the user edit a text and returns it; None if there is no terminal.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        session: Session,
        path: Path | None,
        source: str | None,
    ) -> None:
        """Load the model `source` and the session; `path` is where to save it, None if nowhere."""
        self.args, self.path = args, path
        self.terminal = sys.stdout.isatty()
        self.markdown = bool(args.markdown)
        self.ask: Callable[[str], str] | None = None
        self.warned = ""  # the kind of the last warning: each is shown once
        # The identity of the session's file when we last read or wrote it.
        self.written: tuple[int, int, int] | None = None
        if path is not None and path.exists():
            self.written = identity(path)
        self.chat = self.load(session, source)

    def load(self, session: Session, source: str | None) -> Chat:
        """The session's conversation with the model `source`, which may not be the session's own.

        Changes nothing on error.
        """
        from minigen.chat.engine import Chat
        from minigen.chat.session import tokenizer_key

        self.args.model = source
        model = load_model(self.args)
        tokenizer = tokenizer_key(model)
        conversation = session.conversation
        if session.tokenizer != tokenizer:
            conversation = conversation.without_ids()
        elif session.model != source:
            conversation = conversation.without_runs()
        context = session.context
        if session.model != source and self.args.context is None:
            context = None
        chat = Chat(
            model,
            conversation,
            settings=cast("ChatSettings", session.settings),
            overflow=session.overflow,
            context=context,
            plain=self.args.plain or session.plain,
            draft=load_draft(self.args),
        )
        _ = chat.used  # raises now if the template or the tokenizer cannot handle the conversation
        if session.tokenizer not in ("", tokenizer) and conversation.spoken:
            self.note(
                "this model has a different tokenizer than the one before: "
                "the answers so far are read again as text"
            )
        self.source = source
        if source is not None and Path(source).is_dir():
            # The session may be resumed from another folder.
            self.source = str(Path(source).absolute())
        self.tokenizer = tokenizer
        return chat

    def session(self) -> Session:
        """What is to be saved."""
        from minigen.chat.session import Session

        chat = self.chat
        return Session(
            chat.conversation,
            self.source,
            self.tokenizer,
            chat.window.policy,
            chat.context,
            dict(chat.settings),
            chat.plain,
        )

    def save(self) -> None:
        """Save the session, if it is to be saved. A failure is reported, and ends saving."""
        from minigen.chat.session import save_session

        if self.path is None:
            return
        if self.written is None and not self.chat.conversation.spoken:
            return  # nothing was said yet
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists() and identity(self.path) != self.written:
                taken, self.path = self.path, free_session_path()
                self.note(
                    f"{taken} was changed by another program: this chat is now saved to {self.path}"
                )
            save_session(self.session(), self.path)
            self.written = identity(self.path)
        except (MinigenError, OSError) as error:
            reason = str(error)
            if isinstance(error, OSError):
                reason = f"cannot write {self.path}: {error.strerror}"
            self.note(
                f"{reason}; this chat is not saved any more (/save FILE saves it to another file)"
            )
            self.path = None

    def begin_anew(self) -> None:
        """Keep the file of the conversation so far, and save from now on to another."""
        if self.path is not None and self.written is not None:
            self.path, self.written = free_session_path(), None

    # -- output --
    def note(self, text: str) -> None:
        """Print a remark: dim on a terminal, else on stderr, so that stdout has only answers."""
        if not self.terminal:
            print(f"minigen: {text}", file=sys.stderr)
            return
        text = wrapped(f"[{harmless(text)}]", size_of(sys.stdout)[0])
        if os.environ.get("TERM") != "dumb":
            text = f"\x1b[2m{text}\x1b[0m"
        print(text, flush=True)


def note_plain(app: ChatApp) -> None:
    """Report how messages are formatted if the model has no template."""
    if app.chat.format.plain and not app.chat.plain:
        app.note(
            "this model has no chat template: "
            'it continues a plain transcript, "User: ... Assistant: ..."'
        )
