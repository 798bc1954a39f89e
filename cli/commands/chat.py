"""`minigen chat`: a conversation with a model, on a terminal or through a pipe."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from minigen.errors import ChatError, MinigenError, UsageError

from ..display.terminal import harmless
from ..display.texts import read_text
from ..model_arguments import add_model_arguments, add_speculation_arguments, load_draft, load_model
from ..parser import Parser, say
from ..sampling_arguments import add_sampling_arguments, sampling_settings

if TYPE_CHECKING:
    from minigen.chat.session import Session

    from ..chat.app import ChatApp

NEWEST = "the newest"  # --resume without a name


def add_arguments(parser: Parser) -> None:
    add_model_arguments(parser)
    group = parser.add_argument_group("the conversation")
    group.add_argument("--system", metavar="TEXT", help="system prompt")
    group.add_argument(
        "--plain", action="store_true", help='talk through a transcript ("User: ... Assistant: ...") in any case'
    )
    group.add_argument(
        "--overflow",
        choices=("stop", "roll", "sinks"),
        help="a conversation longer than the window: stop (default), leave the oldest turns out, or attention sinks",
    )
    group.add_argument("--context", type=int, metavar="N", help="a smaller window than the model's")
    group.add_argument(
        "-n",
        "--max-tokens",
        type=int,
        help="new tokens in an answer at most (default: 512, or a quarter of the window)",
    )
    group.add_argument(
        "--stop", action="append", metavar="TEXT", help="end an answer before this text; may be repeated"
    )
    group.add_argument("--lines", action="store_true", help="standard input is lines, each a message or a command")
    group.add_argument(
        "--no-markdown", dest="markdown", action="store_false", help="on a terminal: the text as the model writes it"
    )
    group = parser.add_argument_group("sessions")
    group.add_argument(
        "--resume", nargs="?", const=NEWEST, metavar="FILE", help="go on with a session; the newest without a name"
    )
    group.add_argument("--session", metavar="FILE", help="save to this file instead of a new one of minigen's")
    group.add_argument("--no-save", action="store_true", help="do not save the session")
    group.add_argument("--replay", metavar="FILE", help="give a session's answers again, and compare them")
    add_sampling_arguments(parser)
    add_speculation_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if args.replay is not None:
        return run_replay(args)
    from ..chat.app import ChatApp

    session, path = begin(args)
    app = ChatApp(args, session, path, args.model or session.model)
    if args.system is not None:
        app.chat.set_system(args.system or None)
    if sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty():
        from ..chat.answer import terminal_without

        with terminal_without("ECHO", "ECHOCTL"):
            talk(app, resumed=args.resume is not None)
    else:
        answer_input(app, lines=args.lines)
    return 0


def begin(args: argparse.Namespace) -> tuple[Session, Path | None]:
    """The session to go on with or a new one, as the flags change it, and where it is to be saved."""
    from minigen.chat.session import Session, load_session

    from ..chat.app import data_folder, free_session_path

    session, path = Session(), free_session_path()
    if args.resume is not None:
        resumed = newest(data_folder() / "sessions") if args.resume == NEWEST else Path(args.resume)
        session = load_session(resumed)
        path = path if session.imported else resumed
    if args.session is not None and Path(args.session).absolute() != path.absolute():
        path = Path(args.session)
        if path.exists():
            raise UsageError(f"{path} exists: go on with it by --resume {path}, or choose another name")
    own = {name: getattr(args, name) for name in ("max_tokens", "stop", "speculate", "draft_tokens")}
    given = {name: value for name, value in (sampling_settings(args) | own).items() if value is not None}
    if args.draft is not None:  # instead of how the session guessed
        session.settings.pop("speculate", None)
    session.settings |= given
    session.overflow = args.overflow or session.overflow
    session.context = session.context if args.context is None else args.context
    return session, None if args.no_save else path


def newest(folder: Path) -> Path:
    """The session that was written to last."""
    found = sorted(folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UsageError(f"there is no session in {folder} to resume")
    return found[-1]


def talk(app: ChatApp, resumed: bool) -> None:
    """The loop on a terminal, until the user leaves."""
    from ..chat.app import data_folder
    from ..chat.commands import Leave, handle
    from ..chat.prompt import LinePrompt

    signal.signal(signal.SIGINT, lambda signum, frame: None)  # outside of an answer it is a key; see LinePrompt.ask
    prompt = LinePrompt(app, data_folder())
    app.ask = prompt.edit
    greet(app, resumed)
    while True:
        try:
            handle(app, prompt.ask())
            print()
        except (Leave, EOFError):
            break
        except KeyboardInterrupt:  # a line that was begun is dropped, as in a shell
            continue
        except (MinigenError, OSError) as error:
            say(str(error))
            print()
    if app.path is not None and app.chat.conversation.spoken:
        own = app.path.parent == data_folder() / "sessions"
        app.note(f"saved: minigen chat --resume{'' if own else f' {app.path}'} goes on with it")


def greet(app: ChatApp, resumed: bool) -> None:
    from ..chat.app import tell_plain

    chat, model = app.chat, app.chat.model
    size = f"a window of {chat.window.size} tokens" if chat.window.size else "no bound on its context"
    app.note(f"{app.source or model.folder.name} on {model.backend} ({model.device}, {model.precision}), {size}")
    tell_plain(app)
    if resumed:
        spoken = chat.conversation.spoken
        app.note(f"{len(spoken)} messages so far, of which these are the last")
        for message in spoken[-2:]:
            print(harmless(f"> {message.content}" if message.role == "user" else message.content.strip()))
    app.note("/help lists the commands, Ctrl-D leaves")


def answer_input(app: ChatApp, lines: bool) -> None:
    """Standard input through a pipe: one message, or lines that are messages and commands; errors end it.

    From a keyboard (only the answers go through a pipe) lines are taken too, and errors are told.
    """
    from ..chat.answer import show
    from ..chat.app import tell_plain
    from ..chat.commands import Leave, handle
    from ..chat.lines import LineReader
    from ..chat.words import Line, without_line_end

    tell_plain(app)
    keyboard = sys.stdin is not None and sys.stdin.isatty()
    if not lines and not keyboard:
        text = without_line_end(read_text("-"))
        if not text.strip():
            raise UsageError("standard input is empty: write a message")
        show(app, lambda: app.chat.say(text))
        return
    if keyboard:
        app.note("type a message; /help lists the commands, Ctrl-D leaves")
    reader = LineReader(keyboard)
    while True:
        try:
            line = reader.read()
            if line is None:
                return
            handle(app, Line(line))
        except Leave:
            return
        except BrokenPipeError:  # nobody reads the answers
            raise
        except (MinigenError, OSError) as error:
            if not keyboard:
                raise
            say(str(error))
        except KeyboardInterrupt:  # an answer was stopped, or a line that was begun is dropped
            if not keyboard:
                raise
            print(file=sys.stderr)


def run_replay(args: argparse.Namespace) -> int:
    """Exit code 0 where every answer came out the same, 1 where one did not, or none could be compared."""
    from minigen.chat.engine import Chat
    from minigen.chat.replay import replay
    from minigen.chat.session import load_session, tokenizer_key

    session = load_session(Path(args.replay))
    args.model = args.model or session.model
    model = load_model(args)
    if session.tokenizer != tokenizer_key(model):
        raise ChatError(f"{args.replay} was made with a model that reads other tokens: name that one")
    results = list(replay(Chat(model, plain=args.plain or session.plain, draft=load_draft(args)), session.conversation))
    for found in results:
        if found.skipped:
            print(f"message {found.message + 1}: skipped, {found.skipped}")
    compared = [found for found in results if not found.skipped]
    differ = [found for found in compared if found.at is not None]
    tokens, same = sum(found.tokens for found in compared), len(compared) - len(differ)
    print(f"{len(compared)} answers, {tokens} tokens, on {model.backend}: {same} the same, {len(differ)} not")
    for found in differ[:1]:
        print(f"first difference: message {found.message + 1}, token {(found.at or 0) + 1}")
        print(f"  recorded: {found.expected[:60]!r}")
        print(f"  now:      {found.got[:60]!r}")
    return 1 if differ or not compared else 0
