"""The line that the user writes on: prompt-toolkit with history, completion, several lines and a toolbar."""

from __future__ import annotations

import os
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import HTML
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.styles import Style

from minigen.chat.engine import CHAT_SETTINGS
from minigen.chat.window import POLICIES

from .chat_commands import COMMANDS
from .chat_words import is_open
from .report import rate

if TYPE_CHECKING:
    from .chat_app import ChatApp

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


def bindings() -> KeyBindings:
    """Enter sends unless a triple quote is open; Alt-Enter is a new line."""
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_open(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def history(path: Path) -> FileHistory | InMemoryHistory:
    """Lines of earlier chats, for nobody else to read; of this one alone where the file cannot be had."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600))
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))


class LinePrompt:
    """Asks for lines until the user leaves: EOFError at Ctrl-D, KeyboardInterrupt at Ctrl-C."""

    def __init__(self, app: ChatApp, folder: Path) -> None:
        self.app = app
        self.session: PromptSession[str] = PromptSession(
            history=history(folder / "history"),
            completer=Commands(),
            complete_while_typing=True,
            key_bindings=bindings(),
            multiline=True,
            prompt_continuation=lambda width, number, soft: "" if soft else "… "[:width],
            bottom_toolbar=self.toolbar,
            enable_history_search=False,
            reserve_space_for_menu=4,
            style=Style.from_dict({"bottom-toolbar": "noreverse dim"}),
        )

    def ask(self, text: str = "") -> str:
        return self.session.prompt("> ", default=text)

    def toolbar(self) -> Any:
        """Model, backend, what of the window is used, and the speed of the last answer; cut where it is too long."""
        chat = self.app.chat
        name = Path(self.app.source).name if self.app.source else chat.model.folder.name
        used = f"{chat.used} of {chat.window.size} tokens" if chat.window.size else f"{chat.used} tokens"
        parts = [name, chat.model.backend, used]
        if chat.readings:
            timing = chat.readings[-1].timing
            speed = rate(timing.decode_tokens, timing.decode_s)
            parts += [] if speed is None else [f"{speed:,.0f} tokens/s"]
        line = " · ".join(parts)
        return HTML(escape(line[: max(1, get_app().output.get_size().columns - 1)]))
