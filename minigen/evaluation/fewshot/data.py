"""Data files: JSON lines, a JSON list, or label lines; each row comes with its line number."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from minigen.evaluation.fewshot.file import PromptError
from minigen.evaluation.fewshot.source import decode, short
from minigen.reading import RepeatedKeyError, load_json, read_bytes

MOST_BYTES = 512 * 2**20  # of a data file, unpacked
LABEL, TEXT = "label", "text"  # names of the two parts of a label line


@dataclass(frozen=True)
class Row:
    """A row as it was written in a data file, or as a table of the prompt file."""

    values: Mapping[str, Any]
    where: str  # FILE:LINE
    error: Callable[[str, str], PromptError]  # (key, problem) -> the error to raise


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a data file: `.jsonl` and `.json`, any other ending is label lines.

    A file whose name ends in `.gz` is decompressed first. Lines are read on demand, so that nothing
    after the last requested row is checked.

    Raises OSError: there is no such file, or it cannot be read.
    Raises ValueError: it is too large or not a regular file, or the path is invalid.
    Raises PromptError: it is not UTF-8, not gzip, not JSON, or a row is not an object.
    """
    data = read_bytes(path, MOST_BYTES)
    suffixes = path.suffixes
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
        data = _decompress(data, path)
    text = decode(data, path)
    read = _label_lines
    if suffixes[-1:] == [".jsonl"]:
        read = _json_lines
    elif suffixes[-1:] == [".json"]:
        read = _json_list
    for line, values in read(text, path):
        where = f"{path}:{line}"
        if not isinstance(values, dict):
            raise PromptError(
                f'{where}: row: is {short(values)}; it must be an object such as {{"input": ...}}'
            )
        yield Row(values, where, partial(_error, where))


def _decompress(data: bytes, path: Path) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            data = file.read(MOST_BYTES + 1)  # it may expand a thousandfold
    except (OSError, EOFError, zlib.error) as error:
        reason = str(error) or "is cut short"
        raise PromptError(f"{path}:1: gzip: {reason}; compress the file again") from None
    if len(data) > MOST_BYTES:
        raise PromptError(
            f"{path}:1: gzip: expands to more than {MOST_BYTES // 2**20} MiB; give a smaller file"
        )
    return data


def _error(where: str, key: str, problem: str) -> PromptError:
    return PromptError(f"{where}: {key}: {problem}")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers from 1."""
    # Not splitlines: a text may contain U+2028 and the like, which do not end a line here.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.removesuffix("\r")


def _label_lines(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in _lines(text):
        parts = line.split(maxsplit=1)
        if len(parts) < 2:
            raise PromptError(
                f"{path}:{number}: row: is {short(line)}; a label line is LABEL, a space, and "
                "the text"
            )
        yield number, {LABEL: parts[0], TEXT: parts[1]}


def _json_lines(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in _lines(text):
        yield number, _parse(line, path, number)


def _json_list(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    """The entries of a list, or of the only list of an object, each with its line.

    The text is parsed as a whole, and a second time value by value: the parser reports where each
    value ends, and so its line is known.
    """
    whole = _parse(text, path, 1)
    read_value = json.JSONDecoder().raw_decode
    at = _next_value(text, 0)
    if isinstance(whole, dict):
        lists = [name for name, value in whole.items() if isinstance(value, list)]
        if len(lists) != 1:
            raise PromptError(
                f"{path}:1: JSON: has {len(lists)} lists; it must be a list, or an object with "
                "one list"
            )
        at = _next_value(text, at + 1)
        while True:
            name, end = read_value(text, at)
            at = _next_value(text, end)
            if name == lists[0]:
                break
            _, end = read_value(text, at)
            at = _next_value(text, end)
        whole = whole[lists[0]]
    if not isinstance(whole, list):
        raise PromptError(
            f"{path}:1: JSON: is {short(whole)}; it must be a list, or an object with one list"
        )
    at += 1
    line = 1
    line_counted_to = 0
    for value in whole:
        at = _next_value(text, at)
        line += text.count("\n", line_counted_to, at)
        line_counted_to = at
        yield line, value
        _, at = read_value(text, at)


def _next_value(text: str, at: int) -> int:
    """Where the next value, bracket or brace begins, from `at` on."""
    while at < len(text) and text[at] in " \t\r\n,:":
        at += 1
    return at


def _parse(text: str, path: Path, line: int) -> Any:
    try:
        return load_json(text, halves=True)
    except RepeatedKeyError as error:
        problem = "is given twice in one object; keep one of them"
        raise PromptError(f"{path}:{line}: {error.key}: {problem}") from None
    except json.JSONDecodeError as error:
        where = f"{path}:{line + error.lineno - 1}"
        raise PromptError(
            f"{where}: JSON: {error.msg} at column {error.colno}; correct the JSON"
        ) from None
    except ValueError as error:
        raise PromptError(f"{path}:{line}: JSON: {short(str(error))}; correct the JSON") from None
