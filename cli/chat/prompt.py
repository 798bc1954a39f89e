"""The line that the user writes on: prompt-toolkit with history, completion, several lines and a toolbar."""

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

PATHS = ("read", "save", "load", "model")  # commands whose argument is a file or a folder


class Commands(Completer):
    """Slash commands, the names of settings, and paths where a file is wanted."""

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        name, space, rest = text[1:].partition(" ")
        if not space:
            for command, (arguments, summary, _) in COMMANDS.items():
                if command.startswith(name):
                    yield Completion(command, -len(name), f"/{command} {arguments}", summary)
        elif name == "set":
            yield from words(rest, ("overflow", "context", *CHAT_SETTINGS), {"overflow": tuple(POLICIES)})
        elif name == "export":
            yield from words(rest, ("md", "jsonl"), {})
        elif name == "markdown":
            yield from words(rest, ("on", "off"), {})
        elif name in PATHS:
            inner = Document(rest, len(rest))
            yield from PathCompleter(expanduser=True).get_completions(inner, complete_event)


def words(rest: str, first: Iterable[str], second: dict[str, tuple[str, ...]]) -> Iterable[Completion]:
    """Completions of a word, or of the word after one that `second` knows."""
    name, space, value = rest.partition(" ")
    begun, choices = (value, second.get(name, ())) if space else (name, first)
    return (Completion(choice, -len(begun)) for choice in choices if choice.startswith(begun))


class Pasted:
    """What of the line that is being written was pasted. `editing`: it is a message already, and nothing but text."""

    def __init__(self, editing: bool = False) -> None:
        self.editing = editing
        self.forget()

    def forget(self) -> None:
        self.begin = ""  # the pasted text that the line begins with
        self.plain = self.editing  # triple quotes are text

    def paste(self, buffer: Buffer, text: str) -> None:
        if buffer.cursor_position == 0:
            self.begin = text
        self.plain = self.plain or not is_open(buffer.text)  # a block that was typed goes on

    def line(self, text: str) -> Line:
        """The line, as far as what was pasted is still in it."""
        begins = bool(self.begin) and (text.startswith(self.begin[:8]) or self.begin.startswith(text))
        return Line(text, begins, self.plain)


def bindings(pasted: Callable[[], Pasted]) -> KeyBindings:
    """Enter sends unless a triple quote is open; Alt-Enter and Esc Enter are a new line; what is pasted is text."""
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
        text = event.data.replace("\r\n", "\n").replace("\r", "\n")  # a terminal sends line feeds as returns
        pasted().paste(event.current_buffer, text)
        event.current_buffer.insert_text(text)

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-c")
    @keys.add("<sigint>")
    def _(event: KeyPressEvent) -> None:
        if event.app.is_running and not event.app.is_done:  # a second one may come while the line is given up
            event.app.exit(exception=KeyboardInterrupt(), style="class:aborting")

    return keys


class History(FileHistory):
    """Lines of earlier chats; where the disk refuses, those of this chat are kept in memory alone."""

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            super().store_string(string)


def history(path: Path) -> FileHistory | InMemoryHistory:
    """For nobody else to read; of this chat alone where the file cannot be had."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600))
    except OSError:
        return InMemoryHistory()
    return History(str(path))


class LinePrompt:
    """Asks for lines until the user leaves: EOFError at Ctrl-D, KeyboardInterrupt at Ctrl-C."""

    def __init__(self, app: ChatApp, folder: Path) -> None:
        self.app, self.history = app, history(folder / "history")
        self.pasted = Pasted()
        self.keys = bindings(lambda: self.pasted)

    def ask(self) -> Line:
        """A command or a message."""
        self.pasted = Pasted()
        return self.pasted.line(self.prompt(""))

    def edit(self, text: str) -> str:
        """A message, for the user to change: text from its first character on."""
        self.pasted = Pasted(editing=True)
        return self.prompt(text)

    def prompt(self, text: str) -> str:
        # A new session each time: one that is used again stumbles over keys that came while it ended. Ctrl-C is a key
        # here, and what comes as a signal before or after is nothing to end a chat for.
        session: PromptSession[str] = PromptSession(
            history=self.history,
            completer=Commands(),
            complete_while_typing=True,
            key_bindings=self.keys,
            multiline=True,
            prompt_continuation=lambda width, number, soft: "" if soft else "… "[:width],
            bottom_toolbar=self.toolbar,
            reserve_space_for_menu=4,
            style=Style.from_dict({"bottom-toolbar": "noreverse dim"}),
        )
        # Esc waits for Enter, however slowly it is typed. Its type lacks the None of its documentation.
        session.app.timeoutlen = None  # type: ignore[assignment]
        session.default_buffer.on_text_changed += self.emptied
        return session.prompt("> ", default=text, handle_sigint=False)

    def emptied(self, buffer: Buffer) -> None:
        """What was pasted into a line that is empty again is gone."""
        if not buffer.text:
            self.pasted.forget()

    def toolbar(self) -> str:
        """Model, backend, what of the window is used, and the speed of the last answer; cut where it is too long."""
        chat = self.app.chat
        try:
            used, size = chat.used, chat.window.size
        except MinigenError as error:  # the next message will say it too
            return f"{error}"[: max(1, get_app().output.get_size().columns - 1)]
        past = size is not None and used > size
        window = (
            f"{used} tokens"
            if size is None
            else f"{used} tokens, window {size}"
            if past
            else f"{used} of {size} tokens"
        )
        name = Path(self.app.source).name if self.app.source else chat.model.folder.name
        parts = [name, chat.model.backend, window]
        if chat.readings:
            timing = chat.readings[-1].timing
            speed = rate(timing.decode_tokens, timing.decode_s)
            parts += [] if speed is None else [f"{speed:,.0f} tokens/s"]
        return " · ".join(parts)[: max(1, get_app().output.get_size().columns - 1)]
