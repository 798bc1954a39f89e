"""Documents out of files, one after another: texts in pieces, and conversations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigen.reading import load_json
from minigen.training.data.cutting import cut_text, split_text
from minigen.training.data.sources import DataError, Read, Reader

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Text:
    """A piece of a text document; `last`: it ends the document, `cut`: though the text itself goes on."""

    text: str
    last: bool
    where: str  # FILE or FILE:LINE
    cut: bool = False
    resumed: bool = False  # the document begins where a cut was


@dataclass(frozen=True)
class Chat:
    """A conversation: messages of a role and a content."""

    messages: list[dict[str, str]]
    where: str
    unread: tuple[str, ...] = ()  # what else its row says of it, such as calls of tools

    last = True

    @property
    def canonical(self) -> str:
        return json.dumps([[message["role"], message["content"]] for message in self.messages])


Part = Text | Chat


def is_rows(path: Path) -> bool:
    return path.suffix.lower() == ".jsonl"


def read_parts(
    reader: Reader, separator: str | None = None, *, whole: bool = False
) -> Iterator[Part]:
    """What a file holds; long documents in several pieces unless `whole`.

    Raises DataError, with FILE or FILE:LINE, where the file cannot be used or holds nothing.
    """
    path, nothing = reader.path, True
    if is_rows(path):
        for number, line in reader.lines():
            if line.strip():
                where = f"{path}:{number}"
                part = parse_row(line, where)
                nothing = False
                if isinstance(part, Chat):
                    yield part
                else:
                    for text, last in cut_text(part, whole=whole):
                        yield Text(text, last, where)
    else:
        for text, last in split_text(reader.chunks(), separator, whole=whole):
            nothing = False
            yield Text(text, last, str(path))
    if nothing:
        raise DataError(
            f"{path}: holds no {'rows' if is_rows(path) else 'text'}: leave it out, or fill it"
        )


def parse_row(line: str, where: str) -> str | Chat:
    """A row's text, or its conversation. Raises DataError where it has neither, or both."""
    try:
        row = load_json(line, halves=True)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: not valid JSON: {error.msg} at column {error.colno}; correct the line"
        ) from None
    except ValueError as error:
        raise DataError(f"{where}: not usable JSON: {error}; correct the line") from None
    if not isinstance(row, dict) or ("text" in row) == ("messages" in row):
        has = (
            f"has {', '.join(map(repr, row))[:80] or 'nothing'}"
            if isinstance(row, dict)
            else f"is {line[:40]}"
        )
        raise DataError(
            f'{where}: the row {has}: it must be an object with either "text" or "messages"'
        )
    if "text" in row:
        text = row["text"]
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{where}: text is {text!r:.60}: give some text, or leave the row out")
        return _unicode(text, where)
    messages = row["messages"]
    if not isinstance(messages, list) or not messages:
        raise DataError(
            f"{where}: messages is {messages!r:.60}: it must be a list of roles and contents"
        )
    talk = [_message(message, place, where) for place, message in enumerate(messages, 1)]
    if all(message["role"] != "assistant" for message in talk):
        raise DataError(
            f"{where}: no message is the assistant's, so there is nothing to learn: leave the row out"
        )
    return Chat(talk, where, unread_of(row))


def unread_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of what a row says beside roles and contents that a chat template might write."""
    found = {name for message in row["messages"] for name, value in message.items() if value}
    found -= {"role", "content"}
    found |= {name for name in ("tools", "documents") if row.get(name)}
    return tuple(sorted(map(str, found)))


def _message(message: Any, place: int, where: str) -> dict[str, str]:
    role = message.get("role") if isinstance(message, Mapping) else None
    if role not in ROLES:
        raise DataError(
            f"{where}: message {place} has the role {role!r:.60}: known are {', '.join(ROLES)}"
        )
    content = message.get("content")
    if not isinstance(content, str):
        raise DataError(
            f"{where}: message {place} has the content {content!r:.60}: it must be a text"
        )
    if role == "assistant" and not content.strip():
        raise DataError(
            f"{where}: message {place} of the assistant is empty: give some text, or leave the row out"
        )
    return {"role": role, "content": _unicode(content, where)}


def _unicode(text: str, where: str) -> str:
    """JSON can write half of a character; no tokenizer can read it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise DataError(
            f"{where}: not valid Unicode: lone surrogate U+{code:04X} at position {error.start}; take it out"
        ) from None
    return text


def read_files(
    files: Iterable[Path],
    separator: str | None = None,
    *,
    whole: bool = False,
    read: Read = lambda count: None,
) -> Iterator[Part]:
    """What several files hold, in their order."""
    for path in files:
        yield from read_parts(Reader(path, read), separator, whole=whole)


def count_documents(files: Iterable[Path], separator: str | None = None) -> int:
    return sum(part.last for part in read_files(files, separator))


def lone_text(files: Iterable[Path], separator: str | None = None) -> int | None:
    """The characters of a corpus that is one single text document; None for any other."""
    count, ended = 0, False
    for part in read_files(files, separator):
        if ended or isinstance(part, Chat):
            return None
        count, ended = count + len(part.text), part.last
    return count


def cut_at(parts: Iterable[Part], place: int) -> Iterator[Part]:
    """A corpus of one text document as two, of which the first has `place` characters."""
    done = 0
    for part in parts:
        assert isinstance(part, Text)
        begin, done = done, done + len(part.text)
        if begin < place < done:
            yield Text(part.text[: place - begin], True, part.where, cut=True)
            yield Text(part.text[place - begin :], part.last, part.where, resumed=True)
        else:
            yield Text(
                part.text,
                part.last or done == place,
                part.where,
                done == place and not part.last,
                begin >= place,
            )
