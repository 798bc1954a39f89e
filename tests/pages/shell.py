"""What README and the pages tell a reader to type: blocks of code, and their command lines as a shell reads them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = {path.stem: path for path in sorted((ROOT / "minigen" / "pages").glob("*.md"))}
TEXTS = {"README": ROOT / "README.md", "CONTRIBUTING": ROOT / "CONTRIBUTING.md", **PAGES}
FENCE = re.compile(r"^```(\w+)(?: ([^\n]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block. `note` is what stands behind its language: "minutes", or the name of the file that it shows."""

    place: str  # PAGE:LINE
    language: str
    note: str
    text: str


@dataclass(frozen=True)
class Command:
    """One program of a line, with what is piped or redirected into it and out of it."""

    place: str
    words: tuple[str, ...]
    typed: str | None = None  # what `echo TEXT |` gives it
    source: str | None = None  # of `< FILE`
    target: str | None = None  # of `> FILE` or `| tee FILE`
    minutes: bool = False
    output: str | None = None  # what the page says that it prints


def blocks(name: str) -> Iterator[Block]:
    text = TEXTS[name].read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 2
        yield Block(f"{name}:{line}", match[1], match[2] or "", match[3])


def commands(block: Block) -> Iterator[Command]:
    """The commands of a block of `sh`, or the one of a block of `console`."""
    lines, output = block.text.splitlines(), None
    if block.language == "console":
        first, _, output = block.text.partition("\n")
        lines = [first.removeprefix("$ ")]
    for line in lines:
        for words in split(words_of(line), "&&"):
            yield pipeline(block, words, output)


def pipeline(block: Block, words: list[str], output: str | None) -> Command:
    """`echo TEXT | COMMAND < FILE > FILE | tee FILE`, as far as it is there: the pages use no more of a shell."""
    parts = list(split(words, "|"))
    typed = parts.pop(0)[1] if parts[0][0] == "echo" else None
    target = parts.pop()[1] if parts[-1][0] == "tee" else None
    assert len(parts) == 1, f"{block.place}: {words} is more of a shell than these tests know"
    (own,) = parts
    source = take(own, "<")
    target = take(own, ">") or target
    return Command(block.place, tuple(own), typed, source, target, block.note == "minutes", output)


def take(words: list[str], mark: str) -> str | None:
    """The word behind a mark, taken out with it."""
    if mark not in words:
        return None
    at = words.index(mark)
    _, name = words[at : at + 2]
    del words[at : at + 2]
    return name


def words_of(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|<>&;")
    lexer.whitespace_split = True
    return list(lexer)


def split(words: list[str], mark: str) -> Iterator[list[str]]:
    part: list[str] = []
    for word in [*words, mark]:
        if word != mark:
            part.append(word)
        elif part:
            yield part
            part = []
