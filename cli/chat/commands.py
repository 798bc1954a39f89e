"""The slash commands of a chat."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from minigen.errors import MinigenError, UsageError

from ..display.terminal import harmless
from ..display.texts import read_text
from .answer import show
from .app import ChatApp
from .context_view import context_view
from .settings import markdown, model, set_, system
from .views import help_view, stats_view, why_view
from .words import (
    Line,
    command_of,
    expect_free,
    first_word,
    one_path,
    path_of,
    seed_of,
    unquoted,
    without_line_end,
    words_of,
)

EXCERPT = 60  # characters of a message that /undo shows


class ExitChat(Exception):  # noqa: N818  (not an error)
    """The user wants to leave."""


class Command(NamedTuple):
    """A slash command, as /help shows it and as it is run."""

    arguments: str
    summary: str
    run: Callable[[ChatApp, str], None]  # takes the rest of the line
    takes_text: bool = False  # the rest as it is written, white space and triple quotes included


def handle(app: ChatApp, line: Line) -> None:
    """Handle a line of the user's: a command, or a message to answer.

    A message reaches the model as it is, without one line ending at its end. A space before a
    slash, and quotes around a block, are ways to write a message that looks like something else.

    Raises MinigenError, or ExitChat if the user wants to leave.
    """
    text = without_line_end(line.text)
    command = command_of(text)
    if command is not None and line.pasted:
        if command[0] in COMMANDS and "\n" not in text:
            app.note("pasted text is sent as a message; type a command to run it")
        command = None
    if command is None:
        answer(app, message_of(line, text))
        return
    name, rest = command
    if name not in COMMANDS:
        raise UsageError(
            f"there is no command /{name}: /help lists the commands; "
            "to send this as a message, put a space before it"
        )
    run_command(app, COMMANDS[name], rest, line)


def message_of(line: Line, text: str) -> str:
    """The message that a line is, without the quotes of a block or the space before a slash."""
    quoted = block_of(line, text)
    if quoted is not None:
        return quoted
    if text.startswith(" /") and not line.pasted:
        return text[1:]
    return text


def block_of(line: Line, text: str) -> str | None:
    """The text between the quotes of a block, or None if a line has none."""
    if line.plain:
        return None
    return unquoted(text)


def answer(app: ChatApp, message: str) -> None:
    """Show the model's answer to a message, unless the message is blank."""
    if message.strip():
        show(app, lambda: app.chat.say(message))


def run_command(app: ChatApp, command: Command, rest: str, line: Line) -> None:
    if not command.takes_text:
        command.run(app, rest.strip())
        return
    quoted = block_of(line, rest)
    if quoted is not None:
        rest = quoted
    command.run(app, rest)


# -- the conversation --
def clear(app: ChatApp, rest: str) -> None:
    app.begin_anew()
    app.chat.conversation.clear()
    note = "a new conversation"
    if app.chat.conversation.system:
        note += ", with the same system prompt"
    app.note(note)


def regen(app: ChatApp, rest: str) -> None:
    seed = seed_of(rest)
    if app.chat.options.sampling.temperature == 0:
        app.note(
            "at temperature 0 the seed does not change the answer: try /set temperature 0.8 first"
        )
    show(app, lambda: app.chat.again(seed))


def undo(app: ChatApp, rest: str) -> None:
    message = app.chat.conversation.take_turn().strip()
    app.save()
    excerpt = message.split("\n")[0][:EXCERPT]
    if excerpt != message:
        excerpt += "…"
    app.note(f"undone: {excerpt}")


def edit(app: ChatApp, rest: str) -> None:
    messages = app.chat.conversation.spoken
    if not messages:
        raise UsageError("there is no message to edit yet")
    if not rest.strip():
        if app.ask is None:
            raise UsageError("/edit takes the new text if there is no terminal")
        last = messages[-2] if len(messages) % 2 == 0 else messages[-1]
        with suppress(EOFError):  # Ctrl-D leaves the edit, not the chat
            rest = app.ask(last.content)
    if not rest.strip():
        app.note("nothing was changed")
        return
    show(app, lambda: app.chat.edit(rest))


def continue_answer(app: ChatApp, rest: str) -> None:
    show(app, app.chat.go_on)


def read(app: ChatApp, rest: str) -> None:
    name, words = first_word(rest)
    if not name:
        raise UsageError("/read takes a file, and optionally words to put before its text")
    message = without_line_end(read_text(str(path_of(name))))
    app.note(f"{len(message):,} characters of {name}")
    if words.strip():
        message = f"{words}\n\n{message}"
    show(app, lambda: app.chat.say(message))


# -- files --
def save(app: ChatApp, rest: str) -> None:
    from minigen.chat.session import save_session

    path = expect_free(one_path(rest, "/save"))
    save_session(app.session(), path)
    app.note(f"saved to {path}")


def load(app: ChatApp, rest: str) -> None:
    from minigen.chat.session import load_session

    session = load_session(one_path(rest, "/load"))
    conversation = session.conversation
    if session.tokenizer != app.tokenizer:
        conversation = conversation.without_ids()
    before = app.chat.conversation
    app.chat.take(conversation)
    try:
        _ = app.chat.used  # raises if the template or the tokenizer cannot handle it
    except MinigenError:
        app.chat.conversation = before
        raise
    app.begin_anew()
    app.save()
    app.note(f"loaded {len(conversation.spoken)} messages; the settings did not change")


def export(app: ChatApp, rest: str) -> None:
    words = words_of(rest)
    if not words or words[0] not in ("md", "jsonl") or len(words) > 2:
        raise UsageError("/export takes md or jsonl, and optionally a file to write to")
    messages = app.chat.conversation.plain()
    if words[0] == "jsonl":
        text = json.dumps({"messages": messages}, ensure_ascii=False) + "\n"
    else:
        sections = [f"**{m['role'].capitalize()}**\n\n{m['content']}\n" for m in messages]
        text = "\n".join(sections)
    if len(words) == 1:
        if app.terminal:
            text = harmless(text)
        print(text, end="")
        return
    from minigen.files import replacing

    path = expect_free(path_of(words[1]))
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    app.note(f"written to {path}")


# -- views and leaving --
def print_view(text: str) -> None:
    print(text, end="", flush=True)


def list_commands(app: ChatApp, rest: str) -> None:
    rows = []
    for name, command in COMMANDS.items():
        rows.append((f"/{name} {command.arguments}".rstrip(), command.summary))
    print_view(help_view(rows))


def why(app: ChatApp, rest: str) -> None:
    print_view(why_view(app, rest))


def context(app: ChatApp, rest: str) -> None:
    print_view(context_view(app.chat))


def stats(app: ChatApp, rest: str) -> None:
    print_view(stats_view(app.chat))


def leave(app: ChatApp, rest: str) -> None:
    raise ExitChat


# In the order of /help.
COMMANDS: dict[str, Command] = {
    "help": Command("", "list the commands", list_commands),
    "regen": Command("[seed]", "generate another answer to the last message", regen),
    "continue": Command("", "continue the last answer", continue_answer),
    "edit": Command(
        "[text]", "change the last message, and answer it again", edit, takes_text=True
    ),
    "undo": Command("", "remove the last message and its answer", undo),
    "clear": Command("", "start a new conversation; the old one stays saved", clear),
    "system": Command("[text | off]", "show or set the system prompt", system, takes_text=True),
    "read": Command("FILE [words]", "send the words and a file's text", read, takes_text=True),
    "set": Command("[name value]", "change a setting; /set alone lists them", set_),
    "markdown": Command("on | off", "render the Markdown of answers, or not", markdown),
    "why": Command("[from]", "show the tokens of the last answer and their alternatives", why),
    "context": Command("", "show what fills the window, by message", context),
    "stats": Command("", "show tokens read and reused, and speed", stats),
    "save": Command("FILE", "save the session", save),
    "load": Command("FILE", "continue a conversation from a file", load),
    "export": Command("md | jsonl [FILE]", "export as text or as training data", export),
    "model": Command("[MODEL]", "switch to another model", model),
    "exit": Command("", "leave, as Ctrl-D does", leave),
}
