"""A conversation on disk: JSON lines, the first about the session, then one a message. Written whole and renamed.

`load` also takes the lines that training data has, {"messages": [{"role": ..., "content": ...}, ...]}, of which the
first is the conversation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from minigen import __version__
from minigen.chat.conversation import Conversation, Message, Run
from minigen.chat.window import POLICIES
from minigen.errors import ChatError, MinigenError
from minigen.files import replacing
from minigen.model import Model
from minigen.tokenizer import token_files

KEY = "minigen_chat"  # of the first line: the format's version
VERSION = 1


@dataclass
class Session:
    """What a file holds. `tokenizer` tells whether another model reads the same tokens."""

    conversation: Conversation = field(default_factory=Conversation)
    model: str | None = None  # as the user named it
    tokenizer: str = ""
    overflow: str = "stop"
    context: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    plain: bool = False  # a transcript although the model has a chat template
    imported: bool = False  # from training data: its file is not the session's


def tokenizer_key(model: Model) -> str:
    """64 hexadecimal digits that differ where two models read different tokens."""
    found = hashlib.sha256(json.dumps([model.hub_config.get("tokenizer"), model.config.vocab_size]).encode())
    for path in token_files(model.text_folder):
        found.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def save_session(session: Session, path: Path) -> None:
    """Raises MinigenError where the file cannot be written; the old one is whole then."""
    about = {f.name: getattr(session, f.name) for f in fields(session) if f.name not in ("conversation", "imported")}
    head = {KEY: VERSION, "made_with": f"minigen {__version__}", **about, "system": session.conversation.system}
    lines = [head]
    for message in session.conversation.spoken:
        line: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.ids is not None:
            line["ids"] = message.ids
        if message.runs:
            line["runs"] = [asdict(run) for run in message.runs]
        lines.append(line)
    with replacing(path) as beside:
        beside.touch(mode=0o600)  # what was said is nobody else's
        beside.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def load_session(path: Path) -> Session:
    """Raises ChatError, naming the line, for what is no session; MinigenError where the file cannot be read."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise MinigenError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ChatError(f"{path} is not UTF-8: byte {error.object[error.start]:#04x} at {error.start}") from error
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise ChatError(f"{path} is empty: no conversation is in it")
    rows = [(number, read_line(path, number, line)) for number, line in lines]
    head = rows[0][1]
    if "messages" in head:
        return from_messages(path, head["messages"])
    if KEY not in head:
        raise ChatError(f'{path}:1: neither a session (its first line has "{KEY}") nor {{"messages": [...]}}')
    if head[KEY] != VERSION:
        raise ChatError(f"{path}:1: {KEY} is {head[KEY]!r}: this minigen reads {VERSION}")
    session = Session(
        model=take(path, 1, head, "model", str, type(None)),
        tokenizer=take(path, 1, head, "tokenizer", str),
        overflow=take(path, 1, head, "overflow", str),
        context=take(path, 1, head, "context", int, type(None)),
        settings=settings_of(path, 1, take(path, 1, head, "settings", dict)),
        plain=head.get("plain") is True,
    )
    if session.overflow not in POLICIES:
        raise ChatError(f"{path}:1: overflow is {session.overflow!r}: it must be one of {', '.join(POLICIES)}")
    spoken = [read_message(path, number, row) for number, row in rows[1:]]
    system = take(path, 1, head, "system", str, type(None))
    session.conversation = conversation_of(path, spoken, system)
    return session


def conversation_of(path: Path, spoken: list[Message], system: str | None) -> Conversation:
    try:
        return Conversation(spoken, system)
    except ChatError as error:
        raise ChatError(f"{path}: {error}") from None


def from_messages(path: Path, messages: Any) -> Session:
    """A session of nothing but a conversation, from training data's form."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ChatError(f"{path}:1: messages must be a list of objects with a role and a content")
    system = None
    if messages and messages[0].get("role") == "system":
        system = take(path, 1, messages.pop(0), "content", str)
    spoken = [read_message(path, 1, message) for message in messages]
    return Session(conversation_of(path, spoken, system), imported=True)


def read_line(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise ChatError(f"{path}:{number}: not valid JSON: {reason}") from None
    if not isinstance(found, dict):
        raise ChatError(f"{path}:{number}: must be a JSON object, not {type(found).__name__}")
    return found


def take(path: Path, number: int, row: Mapping[str, Any], name: str, *kinds: type) -> Any:
    """A value of one of the kinds, of which a bool is never a number."""
    value = row.get(name)
    if not isinstance(value, kinds) or isinstance(value, bool):
        wanted = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
        raise ChatError(f"{path}:{number}: {name} is {json.dumps(value)[:60]}: it must be {wanted}")
    return value


def settings_of(path: Path, number: int, settings: dict[str, Any]) -> dict[str, Any]:
    """JSON has no whole numbers as keys: those of logit_bias are made such again."""
    bias = settings.get("logit_bias")
    if isinstance(bias, dict):
        if not all(key.isdecimal() for key in bias):
            raise ChatError(f"{path}:{number}: logit_bias must map token ids to numbers")
        settings["logit_bias"] = {int(key): value for key, value in bias.items()}
    return settings


def read_message(path: Path, number: int, row: dict[str, Any]) -> Message:
    role, content = take(path, number, row, "role", str), take(path, number, row, "content", str)
    if role not in ("user", "assistant"):
        raise ChatError(f"{path}:{number}: role is {role!r}: it must be user or assistant")
    if any("\ud800" <= c <= "\udfff" for c in content):
        raise ChatError(f"{path}:{number}: content is not valid Unicode: it has half of a surrogate pair")
    ids = take(path, number, row, "ids", list, type(None))
    if ids is not None and not all(type(i) is int and i >= 0 for i in ids):
        raise ChatError(f"{path}:{number}: ids must be a list of token ids")
    runs = []
    for run in take(path, number, row, "runs", list, type(None)) or []:
        if not isinstance(run, dict) or set(run) != {f.name for f in fields(Run)}:
            raise ChatError(f"{path}:{number}: a run must have {', '.join(f.name for f in fields(Run))}")
        counts = {name: take(path, number, run, name, int) for name in ("start", "tokens", "first")}
        if min(counts.values()) < 0 or counts["first"] % 2:
            raise ChatError(f"{path}:{number}: start, tokens and first must be whole numbers from 0, first an even one")
        settings = settings_of(path, number, take(path, number, run, "settings", dict))
        rest = {
            "finish": take(path, number, run, "finish", str),
            "system": take(path, number, run, "system", str, type(None)),
            "sinks": take(path, number, run, "sinks", int, type(None)),
        }
        runs.append(Run(**counts, **rest, settings=settings))
    return Message(role, content, None if ids is None else tuple(ids), tuple(runs))
