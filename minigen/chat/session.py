"""A conversation on disk: JSON lines, the first about the session, then one for each message.

The file is written as a whole and renamed. `load_session` also reads training data, lines of
{"messages": [{"role": ..., "content": ...}, ...]}, and takes the first line as the conversation.
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

KEY = "minigen_chat"  # key of the first line whose value is the version of the format
VERSION = 1


@dataclass
class Session:
    """The content of a session file. `tokenizer` is the `tokenizer_key` of its model."""

    conversation: Conversation = field(default_factory=Conversation)
    model: str | None = None  # the name that the user gave
    tokenizer: str = ""
    overflow: str = "stop"
    context: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    plain: bool = False  # a transcript, even if the model has a chat template
    imported: bool = False  # from training data, whose file must not be overwritten


def tokenizer_key(model: Model) -> str:
    """64 hexadecimal digits that differ if two models have different tokens."""
    settings = [model.config.get("tokenizer"), model.architecture.vocab_size]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for path in token_files(model.text_folder):
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def save_session(session: Session, path: Path) -> None:
    """Writes a session. Raises MinigenError if that fails; an older file is then unchanged."""
    head: dict[str, Any] = {KEY: VERSION, "made_with": f"minigen {__version__}"}
    for f in fields(session):
        if f.name not in ("conversation", "imported"):
            head[f.name] = getattr(session, f.name)
    head["system"] = session.conversation.system
    lines = [head]
    for message in session.conversation.spoken:
        line: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.ids is not None:
            line["ids"] = message.ids
        if message.runs:
            line["runs"] = [asdict(run) for run in message.runs]
        lines.append(line)
    content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    try:
        content.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(error.object[error.start])
        raise MinigenError(
            f"cannot write {path}: a text of the session has the lone surrogate U+{code:04X}"
        ) from None
    with replacing(path) as temporary:
        temporary.touch(mode=0o600)  # conversations are private
        temporary.write_text(content, encoding="utf-8")


def load_session(path: Path) -> Session:
    """Reads a session.

    Raises ChatError: the file is not a session; the message names line and field.
    Raises MinigenError: the file cannot be read.
    """
    rows: list[tuple[int, dict[str, Any]]] = []  # (line number, its object)
    for number, line in enumerate(read_file(path).split("\n"), 1):
        if line.strip():
            rows.append((number, read_line(path, number, line)))
    if not rows:
        raise ChatError(f"{path} is empty: it has no conversation")
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
            raise FieldError(
                f"{KEY} is {quoted(head[KEY])}: this version of minigen reads {VERSION}"
            )
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
        byte = error.object[error.start]
        raise ChatError(f"{path} is not UTF-8: byte {byte:#04x} at offset {error.start}") from None
    except OSError as error:
        raise MinigenError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # an invalid path, or a file that is too large
        raise MinigenError(f"cannot read {path}: {error}") from error


@contextmanager
def faults_in(path: Path, number: int) -> Iterator[None]:
    """Turns a FieldError in this block into an error about this line."""
    try:
        yield
    except FieldError as error:
        raise ChatError(f"{path}:{number}: {error}") from None


def from_messages(messages: Any) -> Session:
    """A session with only a conversation, from a line of training data."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise FieldError("messages must be a list of objects with a role and a content")
    system = None
    first = 0
    if messages and messages[0].get("role") == "system":
        system = text("messages[0].content", messages[0].get("content", MISSING))
        first = 1
    spoken: list[Message] = []
    for i, row in enumerate(messages[first:]):
        spoken.append(message_of(row, i, f"messages[{i + first}]"))
    return Session(Conversation(spoken, system), imported=True)


def read_line(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = load_json(line, halves=True)  # half a surrogate pair is reported with its field later
    except json.JSONDecodeError as error:
        raise ChatError(f"{path}:{number}: not valid JSON: {error.msg}") from None
    except ValueError as error:
        raise ChatError(f"{path}:{number}: not valid JSON: {error}") from None
    if not isinstance(row, dict):
        raise ChatError(f"{path}:{number}: must be a JSON object, not {type(row).__name__}")
    return row
