"""The generator's templates: compiled once, then written with a scope of words and a random stream.

[small|big|]        one of these alternatives, which may be nested
{toy} {Toy}         a word of the scope; with a capital letter if the slot's name has one
{a toy} {A toy}     the word with its article
{#food} {a #food}   a random word of that class, drawn anew each time
{@sad} {@sad:f}     one of the sentences of a rule; `:f` tells it of the friend instead of the hero
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Scope = dict[str, str]
Draw = Callable[[], float]

# A role's words: name, he, him, his, himself, kind, what others call it, how it cried out.
# `:f` in a rule exchanges the hero's words with the friend's.
ROLES = {
    "h": ("h", "he", "him", "his", "hself", "hk", "hc", "hcried"),
    "f": ("f", "fe", "fim", "fis", "fself", "fk", "fc", "fcried"),
    "g": ("g", "ge", "gim", "gis", "gself", "gk", "gc", "gcried"),
    "w": ("w", "we", "wim", "wis", "wself", "wk", "wc", "wcried"),
}
_AN = re.compile(r"(?:[aeiou]|hour|honest|heir)", re.IGNORECASE)
_NOT_AN = re.compile(r"(?:uni[^nm]|use|usu|eu|one\b|once)", re.IGNORECASE)
_PLAIN_TEXT = re.compile(r"[^\[{|\]]+")
_SLOT = re.compile(r"(?:(a|A) )?([#@]?)([A-Za-z0-9_]+)(?::([fgw]))?\Z")


@dataclass(frozen=True)
class Slot:
    """A place for one word."""

    name: str
    words: Sequence[str] | None  # to draw from; None: the scope has the word
    article: bool
    capital: bool


class Alternatives:
    """Several sequences, of which one is drawn.

    A rule is one too. It is filled in after it is created, so that rules may use each other.
    """

    __slots__ = ("options",)

    def __init__(self) -> None:
        self.options: list[Parts] = []


Parts = list["str | Slot | Alternatives"]


def stream(seed: int, kind: str, number: int) -> random.Random:
    """The random stream of one document: the same on every platform."""
    return random.Random(f"minigen/{seed}/{kind}/{number}")


def pick(draw: Draw, options: Sequence[str]) -> str:
    """One of the options."""
    return options[int(draw() * len(options))]


def with_article(word: str) -> str:
    """ "an owl", "a unicorn"."""
    if _AN.match(word) and not _NOT_AN.match(word):
        return f"an {word}"
    return f"a {word}"


def capitalized(text: str) -> str:
    """The text with its first letter in upper case and the rest unchanged."""
    return text[:1].upper() + text[1:]


class Grammar:
    """Word classes and rules, and the templates compiled against them."""

    def __init__(
        self, classes: Mapping[str, Sequence[str]], rules: Mapping[str, Sequence[str]]
    ) -> None:
        self.classes = classes
        self.rules = rules
        self._compiled: dict[tuple[str, str], Alternatives] = {}

    def compile(self, template: str, role: str = "h") -> Parts:
        """`template` as parts. Templates are our own files, so a mistake in one is an assertion."""
        names = dict(zip(ROLES["h"] + ROLES[role], ROLES[role] + ROLES["h"], strict=True))
        parts, end = self._sequence(template, 0, names, role)
        assert end == len(template), f"unbalanced: {template!r}"
        return parts

    def _sequence(
        self, text: str, start: int, names: Mapping[str, str], role: str
    ) -> tuple[Parts, int]:
        """The parts from `start` to the end of the text or of this alternative, and where it ends.

        `names` maps the words of the hero to those of the role that the text is told of.
        """
        parts: Parts = []
        at = start
        while at < len(text) and text[at] not in "|]":
            if text[at] == "[":
                alternatives = Alternatives()
                while text[at] in "[|":
                    option, at = self._sequence(text, at + 1, names, role)
                    alternatives.options.append(option)
                    assert at < len(text), f"no ] in {text!r}"
                parts.append(alternatives)
                at += 1
            elif text[at] == "{":
                end = text.index("}", at)
                parts.append(self._slot(text[at + 1 : end], names, role))
                at = end + 1
            else:
                plain = _PLAIN_TEXT.match(text, at)
                assert plain is not None
                parts.append(plain.group())
                at = plain.end()
        return parts, at

    def _slot(self, text: str, names: Mapping[str, str], role: str) -> Slot | Alternatives:
        match = _SLOT.match(text)
        assert match, f"not a slot: {text!r}"
        article, mark, name, other_role = match.groups()
        if mark == "@":
            return self.rule(name, other_role or role)
        lower = name[:1].lower() + name[1:]
        words = None
        if mark == "#":
            words = self.classes[lower]
        capital = name != lower or article == "A"
        return Slot(names.get(lower, lower), words, bool(article), capital)

    def rule(self, name: str, role: str = "h") -> Alternatives:
        """The compiled rule, told of `role`."""
        key = (name, role)
        if key not in self._compiled:
            self._compiled[key] = alternatives = Alternatives()
            alternatives.options = [self.compile(text, role) for text in self.rules[name]]
        return self._compiled[key]


def write(parts: Parts, scope: Scope, draw: Draw, out: list[str]) -> None:
    """Append the text of `parts` to `out`, piece by piece."""
    for part in parts:
        if type(part) is str:
            out.append(part)
        elif type(part) is Slot:
            if part.words is None:
                text = scope[part.name]
            else:
                text = pick(draw, part.words)
            if part.article:
                text = with_article(text)
            if part.capital:
                text = capitalized(text)
            out.append(text)
        else:
            assert type(part) is Alternatives
            write(part.options[int(draw() * len(part.options))], scope, draw, out)


def blocks(text: str) -> dict[str, list[str]]:
    """Read the file format of word lists and rules.

    A block is a line `name:` and its entries, each indented by two spaces. A line indented by more
    continues the entry before it. `#` starts a comment line.
    """
    entries_of: dict[str, list[str]] = {}
    entries: list[str] = []
    for line in text.splitlines():
        content = line.strip()
        if not content or line.startswith("#"):
            continue
        if not line[0].isspace():
            name, _, rest = line.partition(":")
            entries = entries_of[name.strip()] = []
            if rest.strip():
                entries.append(rest.strip())
        elif line.startswith("    "):
            entries[-1] += " " + content
        else:
            entries.append(content)
    return entries_of
