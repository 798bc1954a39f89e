"""Reads documents from files, one after another: texts in pieces, and conversations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigen.reading import load_json
from minigen.training.data.cutting import cut_text, split_text
from minigen.training.data.sources import DataError, OnRead, Reader

ROLES = ("system", "user", "assistant")
_EXPECTED = 'it must be an object with either "text" or "messages"'


@dataclass(frozen=True)
class Text:
    """A piece of a text document."""

    text: str
    last: bool  # it ends the document
    where: str  # FILE or FILE:LINE
    cut: bool = False  # the document ends because a text was cut here
    resumed: bool = False  # the document begins where a text was cut


@dataclass(frozen=True)
class Chat:
    """A conversation: messages of a role and a content."""

    messages: list[dict[str, str]]
    where: str
    unread: tuple[str, ...] = ()  # other fields of its row, such as calls of tools

    last = True

    @property
    def contents(self) -> list[str]:
        return [message["content"] for message in self.messages]

    @property
    def canonical(self) -> str:
        """The content as a text: the same for the same messages."""
        return json.dumps([[message["role"], message["content"]] for message in self.messages])


Part = Text | Chat


def is_rows(path: Path) -> bool:
    return path.suffix.lower() == ".jsonl"


def read_parts(
    reader: Reader, separator: str | None = None, *, whole: bool = False
) -> Iterator[Part]:
    """The documents of a file; long ones in several pieces, unless `whole`.

    Raises DataError, with FILE or FILE:LINE, if the file cannot be used or has no documents.
    """
    path = reader.path
    is_empty = True
    if is_rows(path):
        for part in _parts_of_rows(reader, whole):
            is_empty = False
            yield part
        if is_empty:
            raise DataError(f"{path}: has no rows: drop it, or fill it")
    else:
        for text, last in split_text(reader.chunks(), separator, whole=whole):
            is_empty = False
            yield Text(text, last, str(path))
        if is_empty:
            raise DataError(f"{path}: has no text: drop it, or fill it")


def _parts_of_rows(reader: Reader, whole: bool) -> Iterator[Part]:
    for number, line in reader.lines():
        if not line.strip():
            continue
        where = f"{reader.path}:{number}"
        content = parse_row(line, where)
        if isinstance(content, Chat):
            yield content
            continue
        for text, last in cut_text(content, whole=whole):
            yield Text(text, last, where)


def parse_row(line: str, where: str) -> str | Chat:
    """The text of a row, or its conversation. Raises DataError if it has neither, or both."""
    try:
        row = load_json(line, halves=True)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: not valid JSON: {error.msg} at column {error.colno}; correct the line"
        ) from None
    except ValueError as error:
        raise DataError(f"{where}: not usable JSON: {error}; correct the line") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: the row is {line[:40]}: {_EXPECTED}")
    if ("text" in row) == ("messages" in row):
        names = ", ".join(repr(name) for name in row)[:80] or "nothing"
        raise DataError(f"{where}: the row has {names}: {_EXPECTED}")
    if "text" in row:
        text = row["text"]
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{where}: text is {text!r:.60}: give some text, or drop the row")
        return _unicode(text, where)
    messages = row["messages"]
    if not isinstance(messages, list) or not messages:
        raise DataError(
            f"{where}: messages is {messages!r:.60}: it must be a list of objects with role and "
            "content"
        )
    checked = [_message(message, number, where) for number, message in enumerate(messages, 1)]
    if all(message["role"] != "assistant" for message in checked):
        raise DataError(
            f"{where}: no message is the assistant's, so there is nothing to learn: drop the row"
        )
    return Chat(checked, where, unread_of(row))


def unread_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of other fields of a row that a chat template might use."""
    names: set[str] = set()
    for message in row["messages"]:
        for name, value in message.items():
            if value and name not in ("role", "content"):
                names.add(str(name))
    for name in ("tools", "documents"):
        if row.get(name):
            names.add(name)
    return tuple(sorted(names))


def _message(message: Any, number: int, where: str) -> dict[str, str]:
    role = message.get("role") if isinstance(message, Mapping) else None
    if role not in ROLES:
        raise DataError(
            f"{where}: message {number} has the role {role!r:.60}: it must be one of "
            f"{', '.join(ROLES)}"
        )
    content = message.get("content")
    if not isinstance(content, str):
        raise DataError(
            f"{where}: message {number} has the content {content!r:.60}: it must be a string"
        )
    if role == "assistant" and not content.strip():
        raise DataError(
            f"{where}: message {number} of the assistant is empty: give some text, or drop the row"
        )
    return {"role": role, "content": _unicode(content, where)}


def _unicode(text: str, where: str) -> str:
    """The text, which JSON allows to have half of a surrogate pair, but no tokenizer does."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise DataError(
            f"{where}: not valid Unicode: lone surrogate U+{code:04X} at position {error.start}; "
            "remove it"
        ) from None
    return text


def read_files(
    files: Iterable[Path],
    separator: str | None = None,
    *,
    whole: bool = False,
    on_read: OnRead = lambda count: None,
) -> Iterator[Part]:
    """The documents of several files, in order."""
    for path in files:
        yield from read_parts(Reader(path, on_read), separator, whole=whole)


def count_documents(files: Iterable[Path], separator: str | None = None) -> int:
    return sum(part.last for part in read_files(files, separator))


def lone_text(files: Iterable[Path], separator: str | None = None) -> int | None:
    """The number of characters if the files are a single text document; otherwise None."""
    count = 0
    ended = False
    for part in read_files(files, separator):
        if ended or isinstance(part, Chat):
            return None
        count += len(part.text)
        ended = part.last
    return count


def cut_at(parts: Iterable[Part], position: int) -> Iterator[Part]:
    """Cuts a single text document in two, of which the first has `position` characters."""
    end = 0
    for part in parts:
        assert isinstance(part, Text)
        begin = end
        end += len(part.text)
        if begin < position < end:
            yield Text(part.text[: position - begin], True, part.where, cut=True)
            yield Text(part.text[position - begin :], part.last, part.where, resumed=True)
        else:
            yield Text(
                part.text,
                last=part.last or end == position,
                where=part.where,
                cut=end == position and not part.last,
                resumed=begin >= position,
            )
