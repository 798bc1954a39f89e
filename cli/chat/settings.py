"""The commands of a chat that change the next answers: /set, /system, /markdown, /model."""

from __future__ import annotations

import json
from typing import Any

from minigen.chat.engine import CHAT_SETTINGS
from minigen.errors import UsageError
from minigen.reading import load_json
from minigen.reading.spellings import advice, spellings

from ..flags import plain
from .app import ChatApp, note_plain
from .views import setting_values, settings_view
from .words import whole_number, words_of

KNOWN = (*CHAT_SETTINGS, "overflow", "context")


def system(app: ChatApp, rest: str) -> None:
    """/system"""
    if rest.strip() == "off":
        app.chat.set_system(None)
        app.save()
    elif rest.strip():
        app.chat.set_system(rest)
        app.save()
    prompt = app.chat.conversation.system
    app.note(f"system prompt: {prompt}" if prompt else "no system prompt")


def set_(app: ChatApp, rest: str) -> None:
    """/set"""
    name, _, text = rest.partition(" ")
    name = plain(name)
    name = spellings(KNOWN).get(name, name)
    text = text.strip()
    if not name:
        print(settings_view(app.chat), end="")
        return
    if not text:
        raise UsageError(f"/set {name} takes a value, or the word default")
    if name not in KNOWN:
        raise UsageError(f"{name} is not a setting of a chat: {advice(name, KNOWN)}")
    change(app, name, text)
    app.save()
    app.note(f"{name} is {setting_values(app.chat)[name]}")


def change(app: ChatApp, name: str, text: str) -> None:
    """Change one setting to a value, or to its default."""
    if name == "overflow":
        app.chat.set_window(text, app.chat.context)
        return
    value: Any = None
    if name == "context":
        if text != "default":
            value = whole_number(name, text)
        app.chat.set_window(app.chat.window.policy, value)
        return
    if text != "default":
        value = setting_value(name, text)
    app.chat.configure(**{name: value})


def setting_value(name: str, text: str) -> Any:
    """The value as JSON if it is JSON, else the text; one stop string stands for a list of one."""
    try:
        value = load_json(text)
    except json.JSONDecodeError:
        value = text
    except ValueError as error:  # too large or too deep
        raise UsageError(f"the value of {name} cannot be read: {error}") from None
    if name == "stop" and isinstance(value, str):
        return [value]
    if name == "logit_bias" and isinstance(value, dict):
        return {whole_number("a key of logit_bias", key): bias for key, bias in value.items()}
    return value


def markdown(app: ChatApp, rest: str) -> None:
    """/markdown"""
    if rest not in ("on", "off", ""):
        raise UsageError(f"markdown is {rest!r}: it must be on or off")
    if rest:
        app.markdown = rest == "on"
    app.note(f"markdown is {'on' if app.markdown else 'off'}")


def model(app: ChatApp, rest: str) -> None:
    """/model"""
    if rest:
        words = words_of(rest)
        if len(words) != 1:
            raise UsageError("/model takes a folder or a hub id org/name[@revision]")
        app.chat = app.load(app.session(), words[0])
        note_plain(app)
        app.save()
    app.note(f"{app.source or app.chat.model.folder.name} on {app.chat.model.backend}")
