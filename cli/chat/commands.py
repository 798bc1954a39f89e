"""The slash commands of a chat."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress

from minigen.errors import MinigenError, UsageError

from ..display.terminal import harmless
from ..display.texts import read_text
from .answer import show
from .app import ChatApp
from .settings import markdown, model, set_, system
from .views import context_view, help_view, stats_view, why_view
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


class Leave(Exception):  # noqa: N818  (no error)
    """The user wants to go."""


def handle(app: ChatApp, line: Line) -> None:
    """One line of the user's: a command, or a message to answer. Raises MinigenError, or Leave at the end.

    A message reaches the model as it is, but for one line ending at its end. A space before a slash, and quotes around
    a block, are ways to write it.
    """
    text = without_line_end(line.text)
    command = command_of(text)
    if command is not None and line.pasted and command[0] in COMMANDS and "\n" not in text:
        app.note("what is pasted is a message: commands are typed")
    if command is None or line.pasted:
        quoted = None if line.plain else unquoted(text)
        said = quoted if quoted is not None else text[1:] if text.startswith(" /") and not line.pasted else text
        if said.strip():
            show(app, lambda: app.chat.say(said))
        return
    name, rest = command
    if name not in COMMANDS:
        raise UsageError(f"there is no command /{name}: /help lists them, and a space before it makes it a message")
    if name in TAKE_TEXT:
        quoted = None if line.plain else unquoted(rest)
        COMMANDS[name][2](app, rest if quoted is None else quoted)
    else:
        COMMANDS[name][2](app, rest.strip())


# -- the conversation --
def clear(app: ChatApp, rest: str) -> None:
    app.begin_anew()
    app.chat.conversation.clear()
    app.note("a new conversation" + (", with the same system prompt" if app.chat.conversation.system else ""))


def regen(app: ChatApp, rest: str) -> None:
    seed = seed_of(rest)
    if app.chat.options.sampling.temperature == 0:
        app.note("at temperature 0 the answer does not depend on the seed: /set temperature 0.8 gives others")
    show(app, lambda: app.chat.again(seed))


def undo(app: ChatApp, rest: str) -> None:
    said = app.chat.conversation.take_turn()
    app.save()
    first = said.strip().split("\n")[0]
    app.note(f"taken back: {first[:60]}{'…' if len(first) > 60 or chr(10) in said.strip() else ''}")


def edit(app: ChatApp, rest: str) -> None:
    spoken = app.chat.conversation.spoken
    if not spoken:
        raise UsageError("nothing has been said yet")
    if not rest.strip():
        if app.ask is None:
            raise UsageError("/edit takes the new text where there is no terminal")
        with suppress(EOFError):  # Ctrl-D leaves the edit, not the chat
            rest = app.ask(spoken[-2].content if len(spoken) % 2 == 0 else spoken[-1].content)
    if not rest.strip():
        app.note("nothing was changed")
        return
    show(app, lambda: app.chat.edit(rest))


def go_on(app: ChatApp, rest: str) -> None:
    show(app, app.chat.go_on)


def read(app: ChatApp, rest: str) -> None:
    name, said = first_word(rest)
    if not name:
        raise UsageError("/read takes a file, and words to say before its text")
    text = without_line_end(read_text(str(path_of(name))))
    app.note(f"{len(text):,} characters of {name}")
    show(app, lambda: app.chat.say(f"{said}\n\n{text}" if said.strip() else text))


# -- files --
def save(app: ChatApp, rest: str) -> None:
    from minigen.chat.session import save_session

    path = expect_free(one_path(rest, "/save"))
    save_session(app.session(), path)
    app.note(f"saved to {path}")


def load(app: ChatApp, rest: str) -> None:
    from minigen.chat.session import load_session

    found = load_session(one_path(rest, "/load"))
    talk = found.conversation if found.tokenizer == app.tokenizer else found.conversation.without_ids()
    before = app.chat.conversation
    app.chat.take(talk)
    try:
        _ = app.chat.used  # whether the template takes it, and the tokenizer its text
    except MinigenError:
        app.chat.conversation = before
        raise
    app.begin_anew()
    app.save()
    app.note(f"{len(talk.spoken)} messages; the settings are those of before")


def export(app: ChatApp, rest: str) -> None:
    words = words_of(rest)
    if not words or words[0] not in ("md", "jsonl") or len(words) > 2:
        raise UsageError("/export takes md or jsonl, and a file (without one, it is shown)")
    messages = app.chat.conversation.plain()
    if words[0] == "jsonl":
        text = json.dumps({"messages": messages}, ensure_ascii=False) + "\n"
    else:
        text = "\n".join(f"**{m['role'].capitalize()}**\n\n{m['content']}\n" for m in messages)
    if len(words) == 1:
        print(harmless(text) if app.terminal else text, end="")
        return
    from minigen.files import replacing

    path = expect_free(path_of(words[1]))
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")
    app.note(f"written to {path}")


# -- views --
def shown(view: Callable[[ChatApp, str], str]) -> Callable[[ChatApp, str], None]:
    def show(app: ChatApp, rest: str) -> None:
        print(view(app, rest), end="", flush=True)

    return show


TAKE_TEXT = ("edit", "read", "system")  # as it is written, white space and blocks in triple quotes too


def leave(app: ChatApp, rest: str) -> None:
    raise Leave


# name -> (arguments, what it does, function), in the order of /help
COMMANDS: dict[str, tuple[str, str, Callable[[ChatApp, str], None]]] = {
    "help": ("", "this list", shown(lambda app, rest: help_view(COMMANDS))),
    "regen": ("[seed]", "another answer to the last message", regen),
    "continue": ("", "let the last answer go on", go_on),
    "edit": ("[text]", "change the last message, and answer it again", edit),
    "undo": ("", "take the last message and its answer back", undo),
    "clear": ("", "begin anew; the session so far stays in its file", clear),
    "system": ("[text | off]", "the system prompt", system),
    "read": ("FILE [words]", "say the words and a file's text", read),
    "set": ("[name value]", "settings of the next answers; /set alone lists them", set_),
    "markdown": ("on | off", "render finished blocks of an answer", markdown),
    "why": ("[from]", "the tokens of the last answer, and what else they might have been", shown(why_view)),
    "context": ("", "what is in the window, by message", shown(lambda app, rest: context_view(app.chat))),
    "stats": ("", "tokens read and reused, and speed", shown(lambda app, rest: stats_view(app.chat))),
    "save": ("FILE", "save the session", save),
    "load": ("FILE", "go on with a conversation from a file", load),
    "export": ("md | jsonl [FILE]", "the conversation as text, or as training data", export),
    "model": ("[MODEL]", "go on with another model", model),
    "exit": ("", "leave, as Ctrl-D does", leave),
}
