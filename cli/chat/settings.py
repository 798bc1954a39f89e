"""The commands of a chat that change how the next answers come: /set, /system, /markdown, /model."""

from __future__ import annotations

import json
from typing import Any

from minigen.chat.engine import CHAT_SETTINGS
from minigen.errors import UsageError
from minigen.reading import load_json
from minigen.reading.spellings import advice, spellings

from ..parser import plain
from .app import ChatApp, tell_plain
from .views import settings_shown, settings_view
from .words import whole, words_of

KNOWN = (*CHAT_SETTINGS, "overflow", "context")


def system(app: ChatApp, rest: str) -> None:
    if rest.strip():
        app.chat.set_system(None if rest.strip() == "off" else rest)
        app.save()
    text = app.chat.conversation.system
    app.note(f"system prompt: {text}" if text else "no system prompt")


def set_(app: ChatApp, rest: str) -> None:
    name, _, value = rest.partition(" ")
    name = plain(name)
    name, value = spellings(KNOWN).get(name, name), value.strip()
    if not name:
        print(settings_view(app.chat), end="")
        return
    if not value:
        raise UsageError(f"/set {name} takes a value, or the word default")
    if name not in KNOWN:
        raise UsageError(f"{name} is no setting of a chat: {advice(name, KNOWN)}")
    if name == "overflow":
        app.chat.set_window(value, app.chat.context)
    elif name == "context":
        app.chat.set_window(app.chat.window.policy, None if value == "default" else whole(name, value))
    else:
        app.chat.configure(**{name: None if value == "default" else setting_value(name, value)})
    app.save()
    app.note(f"{name} is {settings_shown(app.chat)[name]}")


def setting_value(name: str, text: str) -> Any:
    """JSON where it is JSON, else the text itself; one stop string stands for a list of one."""
    try:
        value = load_json(text)
    except json.JSONDecodeError:
        value = text
    except ValueError as error:  # beyond what a setting can be
        raise UsageError(f"{name} is no setting's value: {error}") from None
    if name == "stop" and isinstance(value, str):
        return [value]
    if name == "logit_bias" and isinstance(value, dict):
        return {whole("a key of logit_bias", key): number for key, number in value.items()}
    return value


def markdown(app: ChatApp, rest: str) -> None:
    if rest not in ("on", "off", ""):
        raise UsageError(f"markdown is {rest!r}: it must be on or off")
    app.markdown = rest == "on" if rest else app.markdown
    app.note(f"markdown is {'on' if app.markdown else 'off'}")


def model(app: ChatApp, rest: str) -> None:
    if rest:
        words = words_of(rest)
        if len(words) != 1:
            raise UsageError("/model takes a folder, or a hub id org/name[@revision]")
        app.chat = app.load(app.session(), words[0])
        tell_plain(app)
        app.save()
    app.note(f"{app.source or app.chat.model.folder.name} on {app.chat.model.backend}")
