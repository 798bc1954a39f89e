"""Data files: JSON lines, a JSON list, or lines of a label and a text; each row with its line."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigen.evaluation.fewshot.file import PromptError
from minigen.evaluation.fewshot.source import decode, short
from minigen.reading import RepeatedKeyError, load_json, read_bytes

MOST_BYTES = 512 * 2**20  # of a data file, unpacked
LABEL, TEXT = "label", "text"  # what the two parts of a label line are called


@dataclass(frozen=True)
class Row:
    """A row as it was written: in a data file, or as a table of the prompt file."""

    values: Mapping[str, Any]
    where: str  # FILE:LINE
    error: Callable[[str, str], PromptError]  # (key, problem) -> what to raise


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a data file by its ending: `.jsonl`, `.json`, else label lines; `.gz` after it unpacks first.

    Lines are read as they are asked for, so what stands after the last row wanted is not checked.

    Raises OSError: there is no such file, or it cannot be read.
    Raises ValueError: it is too large or no regular file, or the path is none.
    Raises PromptError: it is not UTF-8, not gzip, not JSON, or a row is no object; FILE:LINE as above.
    """
    data = read_bytes(path, MOST_BYTES)
    suffixes = path.suffixes
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
                data = packed.read(MOST_BYTES + 1)  # a thousand times as much may be in it
        except (OSError, EOFError, zlib.error) as error:
            raise PromptError(
                f"{path}:1: gzip: {error or 'is cut short'}; pack the file again"
            ) from None
        if len(data) > MOST_BYTES:
            raise PromptError(
                f"{path}:1: gzip: unpacks to more than {MOST_BYTES // 2**20} MiB; give a smaller file"
            )
    text = decode(data, path)
    suffix = suffixes[-1] if suffixes else ""
    read = {".jsonl": _json_lines, ".json": _json_list}.get(suffix, _label_lines)
    for line, values in read(text, path):
        where = f"{path}:{line}"
        if not isinstance(values, dict):
            raise PromptError(
                f'{where}: row: is {short(values)}; it must be an object such as {{"input": ...}}'
            )
        yield Row(values, where, _error_at(where))


def _error_at(where: str) -> Callable[[str, str], PromptError]:
    return lambda key, problem: PromptError(f"{where}: {key}: {problem}")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    # Not splitlines: a text may hold U+2028 and its like, which end no line of these formats.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.removesuffix("\r")


def _label_lines(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in _lines(text):
        parts = line.split(maxsplit=1)
        if len(parts) < 2:
            raise PromptError(
                f"{path}:{number}: row: is {short(line)}; a label line is LABEL, a space, and the text"
            )
        yield number, {LABEL: parts[0], TEXT: parts[1]}


def _json_lines(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in _lines(text):
        yield number, _parse(line, path, number)


def _json_list(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    whole = _parse(text, path, 1)
    read = json.JSONDecoder().raw_decode
    at = _past(text, 0)
    if isinstance(whole, dict):
        lists = [name for name, value in whole.items() if isinstance(value, list)]
        if len(lists) != 1:
            raise PromptError(
                f"{path}:1: JSON: has {len(lists)} lists; it must be a list, or an object with one list"
            )
        at = _past(text, at + 1)
        while True:  # over the names and their values, to the list: only so is its line known
            name, at = read(text, at)
            at = _past(text, at)
            if name == lists[0]:
                break
            at = _past(text, read(text, at)[1])
        whole = whole[lists[0]]
    if not isinstance(whole, list):
        raise PromptError(
            f"{path}:1: JSON: is {short(whole)}; it must be a list, or an object with one list"
        )
    at += 1
    line, counted = 1, 0
    for value in whole:
        at = _past(text, at)
        line, counted = line + text.count("\n", counted, at), at
        yield line, value
        at = read(text, at)[1]


def _past(text: str, at: int) -> int:
    """The place of the next value, bracket or brace from `at` on."""
    while at < len(text) and text[at] in " \t\r\n,:":
        at += 1
    return at


def _parse(text: str, path: Path, line: int) -> Any:
    try:
        return load_json(text, halves=True)
    except RepeatedKeyError as error:
        raise PromptError(
            f"{path}:{line}: {error.key}: stands twice in one object; keep one of them"
        ) from None
    except json.JSONDecodeError as error:
        where = f"{path}:{line + error.lineno - 1}"
        raise PromptError(
            f"{where}: JSON: {error.msg} at column {error.colno}; correct the JSON"
        ) from None
    except ValueError as error:
        raise PromptError(f"{path}:{line}: JSON: {short(str(error))}; correct the JSON") from None
