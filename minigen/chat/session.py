"""A conversation on disk: JSON lines, the first about the session, then one a message. Written whole and renamed.

`load` also takes the lines that training data has, {"messages": [{"role": ..., "content": ...}, ...]}, of which the
first is the conversation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from minigen import __version__
from minigen.chat.conversation import Conversation, Message
from minigen.chat.schema import HEAD, MISSING, FieldError, fields_of, message_of, quoted, text
from minigen.errors import ChatError, MinigenError
from minigen.files import replacing
from minigen.model import Model
from minigen.reading import load_json, read_bytes
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
    found = hashlib.sha256(
        json.dumps([model.config.get("tokenizer"), model.architecture.vocab_size]).encode()
    )
    for path in token_files(model.text_folder):
        found.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def save_session(session: Session, path: Path) -> None:
    """Raises MinigenError where the file cannot be written; the old one is whole then."""
    about = {
        f.name: getattr(session, f.name)
        for f in fields(session)
        if f.name not in ("conversation", "imported")
    }
    head = {
        KEY: VERSION,
        "made_with": f"minigen {__version__}",
        **about,
        "system": session.conversation.system,
    }
    lines = [head]
    for message in session.conversation.spoken:
        line: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.ids is not None:
            line["ids"] = message.ids
        if message.runs:
            line["runs"] = [asdict(run) for run in message.runs]
        lines.append(line)
    written = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    try:
        written.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(error.object[error.start])
        raise MinigenError(
            f"cannot write {path}: the lone surrogate U+{code:04X} is in the session's texts"
        ) from None
    with replacing(path) as beside:
        beside.touch(mode=0o600)  # what was said is nobody else's
        beside.write_text(written, encoding="utf-8")


def load_session(path: Path) -> Session:
    """Raises ChatError, naming line and field, for what is no session; MinigenError where the file cannot be read."""
    lines = [
        (number, line) for number, line in enumerate(read_file(path).split("\n"), 1) if line.strip()
    ]
    if not lines:
        raise ChatError(f"{path} is empty: no conversation is in it")
    rows = [(number, read_line(path, number, line)) for number, line in lines]
    head = rows[0][1]
    if "messages" in head:
        with faults_in(path, 1):
            return from_messages(head["messages"])
    if KEY not in head:
        raise ChatError(
            f'{path}:1: neither a session (its first line has "{KEY}") nor {{"messages": [...]}}'
        )
    with faults_in(path, 1):
        if type(head[KEY]) is not int or head[KEY] != VERSION:
            raise FieldError(f"{KEY} is {quoted(head[KEY])}: this minigen reads {VERSION}")
        about = fields_of(HEAD, head)
    spoken: list[Message] = []
    for number, row in rows[1:]:
        with faults_in(path, number):
            spoken.append(message_of(row, len(spoken)))
    return Session(Conversation(spoken, about.pop("system")), **about)


def read_file(path: Path) -> str:
    try:
        return read_bytes(path, pipes=True).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ChatError(
            f"{path} is not UTF-8: byte {error.object[error.start]:#04x} at {error.start}"
        ) from None
    except OSError as error:
        raise MinigenError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # what is no path, or too large
        raise MinigenError(f"cannot read {path}: {error}") from error


@contextmanager
def faults_in(path: Path, number: int) -> Iterator[None]:
    """A fault in the block is an error of this line."""
    try:
        yield
    except FieldError as error:
        raise ChatError(f"{path}:{number}: {error}") from None


def from_messages(messages: Any) -> Session:
    """A session of nothing but a conversation, from training data's form."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise FieldError("messages must be a list of objects with a role and a content")
    first = 1 if messages and messages[0].get("role") == "system" else 0
    system = text("messages[0].content", messages[0].get("content", MISSING)) if first else None
    spoken = [
        message_of(row, i, f"messages[{i + first}]") for i, row in enumerate(messages[first:])
    ]
    return Session(Conversation(spoken, system), imported=True)


def read_line(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        found = load_json(line, halves=True)  # the table says in which field half a character is
    except ValueError as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise ChatError(f"{path}:{number}: not valid JSON: {reason}") from None
    if not isinstance(found, dict):
        raise ChatError(f"{path}:{number}: must be a JSON object, not {type(found).__name__}")
    return found
