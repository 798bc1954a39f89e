"""`minigen chat`: chat with a model, on a terminal or through a pipe."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from minigen.errors import MinigenError, UsageError

from ..chat.arguments import NEWEST, add_conversation, add_sessions
from ..display.terminal import harmless
from ..display.texts import read_text
from ..model_arguments import add_model_arguments, add_speculation_arguments
from ..parser import Parser, say
from ..sampling_arguments import add_sampling_arguments, sampling_settings

if TYPE_CHECKING:
    from minigen.chat.session import Session

    from ..chat.app import ChatApp
    from ..chat.lines import LineReader


def add_arguments(parser: Parser) -> None:
    add_model_arguments(parser)
    add_conversation(parser)
    add_sessions(parser)
    add_sampling_arguments(parser)
    add_speculation_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if args.replay is not None:
        from ..chat.replay import run_replay

        return run_replay(args)
    from ..chat.app import ChatApp

    session, path = begin(args)
    app = ChatApp(args, session, path, args.model or session.model)
    if args.system is not None:
        app.chat.set_system(args.system or None)
    if sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty():
        from ..chat.answer import terminal_without

        with terminal_without("ECHO", "ECHOCTL"):
            chat_on_terminal(app, resumed=args.resume is not None)
    else:
        answer_input(app, lines=args.lines)
    return 0


# -- the session --
def begin(args: argparse.Namespace) -> tuple[Session, Path | None]:
    """The session to start with, as the flags change it, and where to save it."""
    session, path = open_session(args)
    if args.session is not None and Path(args.session).absolute() != path.absolute():
        path = Path(args.session)
        if path.exists():
            raise UsageError(
                f"{path} exists: continue it with --resume {path}, or choose another name"
            )
    settings = sampling_settings(args)
    for name in ("max_tokens", "stop", "speculate", "draft_tokens"):
        value = getattr(args, name)
        if value is not None:
            settings[name] = value
    if args.draft is not None:  # it replaces the session's way of drafting
        session.settings.pop("speculate", None)
    session.settings |= settings
    session.overflow = args.overflow or session.overflow
    if args.context is not None:
        session.context = args.context
    return session, None if args.no_save else path


def open_session(args: argparse.Namespace) -> tuple[Session, Path]:
    """A new session, or the one to resume, and its file."""
    from minigen.chat.session import Session, load_session

    from ..chat.app import data_folder, free_session_path

    if args.resume is None:
        return Session(), free_session_path()
    if args.resume == NEWEST:
        path = newest(data_folder() / "sessions")
    else:
        path = Path(args.resume)
    session = load_session(path)
    if session.imported:
        path = free_session_path()
    return session, path


def newest(folder: Path) -> Path:
    """The session file that was written last."""

    def written_at(path: Path) -> float:
        return path.stat().st_mtime

    paths = sorted(folder.glob("*.jsonl"), key=written_at)
    if not paths:
        raise UsageError(f"there is no session in {folder} to resume")
    return paths[-1]


# -- on a terminal --
def chat_on_terminal(app: ChatApp, resumed: bool) -> None:
    """Read and handle lines until the user leaves."""
    from ..chat.app import data_folder
    from ..chat.commands import ExitChat, handle
    from ..chat.prompt import LinePrompt

    # Outside of an answer Ctrl-C is a key; see LinePrompt.prompt.
    signal.signal(signal.SIGINT, lambda signum, frame: None)
    prompt = LinePrompt(app, data_folder())
    app.ask = prompt.edit
    greet(app, resumed)
    while True:
        try:
            handle(app, prompt.ask())
            print()
        except (ExitChat, EOFError):
            break
        except KeyboardInterrupt:  # the line is dropped, as in a shell
            continue
        except (MinigenError, OSError) as error:
            say(str(error))
            print()
    if app.path is not None and app.chat.conversation.spoken:
        resume = "minigen chat --resume"
        if app.path.parent != data_folder() / "sessions":
            resume += f" {app.path}"
        app.note(f"saved: continue with {resume}")


def greet(app: ChatApp, resumed: bool) -> None:
    """The model, the window and, of a resumed session, the last messages."""
    from ..chat.app import note_plain

    chat, model = app.chat, app.chat.model
    name = app.source or model.folder.name
    window = "no limit on its context"
    if chat.window.size:
        window = f"a window of {chat.window.size} tokens"
    app.note(f"{name} on {model.backend} ({model.device}, {model.precision}), {window}")
    note_plain(app)
    if resumed:
        messages = chat.conversation.spoken
        app.note(f"{len(messages)} messages so far; the last ones:")
        for message in messages[-2:]:
            text = message.content.strip()
            if message.role == "user":
                text = f"> {message.content}"
            print(harmless(text))
    app.note("/help lists the commands, Ctrl-D exits")


# -- through a pipe --
def answer_input(app: ChatApp, lines: bool) -> None:
    """Answer standard input: one message, or lines that are messages and commands.

    An error ends it. If standard input is a keyboard (and only the answers go through a pipe), it
    is read line by line, and errors are only reported.
    """
    from ..chat.answer import show
    from ..chat.app import note_plain
    from ..chat.lines import LineReader
    from ..chat.words import without_line_end

    note_plain(app)
    keyboard = sys.stdin is not None and sys.stdin.isatty()
    if not lines and not keyboard:
        text = without_line_end(read_text("-"))
        if not text.strip():
            raise UsageError("standard input is empty: write a message")
        show(app, lambda: app.chat.say(text))
        return
    if keyboard:
        app.note("type a message; /help lists the commands, Ctrl-D exits")
    reader = LineReader(keyboard)
    while answer_line(app, reader, keyboard):
        pass


def answer_line(app: ChatApp, reader: LineReader, keyboard: bool) -> bool:
    """Handle one line; returns whether there may be more."""
    from ..chat.commands import ExitChat, handle
    from ..chat.words import Line

    try:
        line = reader.read()
        if line is None:
            return False
        handle(app, Line(line))
    except ExitChat:
        return False
    except BrokenPipeError:  # nobody reads the answers
        raise
    except (MinigenError, OSError) as error:
        if not keyboard:
            raise
        say(str(error))
    except KeyboardInterrupt:  # an answer was stopped, or a line is dropped
        if not keyboard:
            raise
        print(file=sys.stderr)
    return True
