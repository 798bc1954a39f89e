"""The input line: prompt-toolkit with history, completion, several lines and a toolbar."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.styles import Style

from minigen.chat.engine import CHAT_SETTINGS
from minigen.chat.window import POLICIES
from minigen.errors import MinigenError

from ..display.report import rate
from .commands import COMMANDS
from .words import Line, is_open

if TYPE_CHECKING:
    from .app import ChatApp

PATHS = ("read", "save", "load", "model")  # commands that take a file or a folder


class Commands(Completer):
    """Completes slash commands, the names of settings, and paths of files."""

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        name, space, rest = text[1:].partition(" ")
        if not space:
            for known, command in COMMANDS.items():
                if known.startswith(name):
                    usage = f"/{known} {command.arguments}"
                    yield Completion(known, -len(name), usage, command.summary)
        elif name == "set":
            yield from complete_setting(rest)
        elif name == "export":
            yield from complete(rest, ("md", "jsonl"))
        elif name == "markdown":
            yield from complete(rest, ("on", "off"))
        elif name in PATHS:
            inner = Document(rest, len(rest))
            yield from PathCompleter(expanduser=True).get_completions(inner, complete_event)


def complete_setting(rest: str) -> Iterable[Completion]:
    """Completions of the arguments of /set."""
    name, space, value = rest.partition(" ")
    if not space:
        yield from complete(name, ("overflow", "context", *CHAT_SETTINGS))
    elif name == "overflow":
        yield from complete(value, POLICIES)


def complete(begun: str, words: Iterable[str]) -> Iterable[Completion]:
    """The words that begin so."""
    for word in words:
        if word.startswith(begun):
            yield Completion(word, -len(begun))


class Pasted:
    """Which part of the line that is being written was pasted."""

    def __init__(self, editing: bool = False) -> None:
        """`editing`: the line is a message already, and everything in it is text."""
        self.editing = editing
        self.forget()

    def forget(self) -> None:
        self.start = ""  # the pasted text that the line begins with
        self.plain = self.editing  # triple quotes are text

    def paste(self, buffer: Buffer, text: str) -> None:
        if buffer.cursor_position == 0:
            self.start = text
        if not is_open(buffer.text):  # else a block was opened by typing quotes
            self.plain = True

    def line(self, text: str) -> Line:
        """The line, with whether it still begins with the pasted text."""
        if not self.start:
            return Line(text, False, self.plain)
        pasted = text.startswith(self.start[:8]) or self.start.startswith(text)
        return Line(text, pasted, self.plain)


def bindings(pasted: Callable[[], Pasted]) -> KeyBindings:
    """Enter sends, unless a triple quote is open; Alt-Enter and Esc Enter start a new line."""
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_open(buffer.text) and not pasted().line(buffer.text).plain:
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add(Keys.BracketedPaste)
    def _(event: KeyPressEvent) -> None:
        # A terminal sends line feeds as carriage returns.
        text = event.data.replace("\r\n", "\n").replace("\r", "\n")
        pasted().paste(event.current_buffer, text)
        event.current_buffer.insert_text(text)

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-c")
    @keys.add("<sigint>")
    def _(event: KeyPressEvent) -> None:
        if (
            event.app.is_running and not event.app.is_done
        ):  # a second Ctrl-C may come while this ends
            event.app.exit(exception=KeyboardInterrupt(), style="class:aborting")

    return keys


class History(FileHistory):
    """Lines of earlier chats; those of this chat stay in memory if they cannot be written."""

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            super().store_string(string)


def history(path: Path) -> FileHistory | InMemoryHistory:
    """The history in a file that only the user can read, or in memory if there can be no file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600))
    except OSError:
        return InMemoryHistory()
    return History(str(path))


class LinePrompt:
    """Asks for lines; raises EOFError at Ctrl-D and KeyboardInterrupt at Ctrl-C."""

    def __init__(self, app: ChatApp, folder: Path) -> None:
        self.app, self.history = app, history(folder / "history")
        self.pasted = Pasted()
        self.keys = bindings(lambda: self.pasted)

    def ask(self) -> Line:
        """A command or a message."""
        self.pasted = Pasted()
        return self.pasted.line(self.prompt(""))

    def edit(self, text: str) -> str:
        """Let the user change a message; all of it is text."""
        self.pasted = Pasted(editing=True)
        return self.prompt(text)

    def prompt(self, text: str) -> str:
        # A new session each time: a session that is used again is confused by keys that came while
        # it ended. Ctrl-C is a key here; as a signal, before or after, it must not end the chat.
        session: PromptSession[str] = PromptSession(
            history=self.history,
            completer=Commands(),
            complete_while_typing=True,
            key_bindings=self.keys,
            multiline=True,
            prompt_continuation=continuation,
            bottom_toolbar=self.toolbar,
            reserve_space_for_menu=4,
            style=Style.from_dict({"bottom-toolbar": "noreverse dim"}),
        )
        # Esc waits for Enter, however slowly it is typed. The type lacks the documented None.
        session.app.timeoutlen = None  # type: ignore[assignment]
        session.default_buffer.on_text_changed += self.emptied
        return session.prompt("> ", default=text, handle_sigint=False)

    def emptied(self, buffer: Buffer) -> None:
        """Forget the pasted text when the line becomes empty."""
        if not buffer.text:
            self.pasted.forget()

    def toolbar(self) -> str:
        """The text of the toolbar, cut to the width of the terminal."""
        try:
            text = self.status()
        except MinigenError as error:  # the next message will raise it too
            text = str(error)
        return text[: max(1, get_app().output.get_size().columns - 1)]

    def status(self) -> str:
        """Model, backend, how full the window is, and the speed of the last answer."""
        chat = self.app.chat
        used, size = chat.used, chat.window.size
        if size is None:
            window = f"{used} tokens"
        elif used > size:
            window = f"{used} tokens, window {size}"
        else:
            window = f"{used} of {size} tokens"
        name = chat.model.folder.name
        if self.app.source:
            name = Path(self.app.source).name
        parts = [name, chat.model.backend, window]
        if chat.readings:
            timing = chat.readings[-1].timing
            speed = rate(timing.decode_tokens, timing.decode_s)
            if speed is not None:
                parts.append(f"{speed:,.0f} tokens/s")
        return " · ".join(parts)


def continuation(width: int, number: int, soft_wrap: int) -> str:
    """What stands before the second and later lines of a message."""
    return "" if soft_wrap else "… "[:width]
