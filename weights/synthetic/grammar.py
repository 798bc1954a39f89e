"""Templates of the generator: compiled once, then written out with a scope of words and a random stream.

[small|big|]        one of these, nested as one likes
{toy} {Toy}         a word of the scope; with a capital where the name has one
{a toy} {A toy}     the word with its article
{#food} {a #food}   a word of that class, another one each time
{@sad} {@sad:f}     one of the sentences of a rule; with :f it is told of the friend and not of the hero
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Scope = dict[str, str]
Draw = Callable[[], float]

# The keys of a role: name, he, him, his, himself, kind, as called, cried. `:f` changes hero and friend in a rule.
ROLES = {
    "h": ("h", "he", "him", "his", "hself", "hk", "hc", "hcried"),
    "f": ("f", "fe", "fim", "fis", "fself", "fk", "fc", "fcried"),
    "g": ("g", "ge", "gim", "gis", "gself", "gk", "gc", "gcried"),
    "w": ("w", "we", "wim", "wis", "wself", "wk", "wc", "wcried"),
}
_AN = re.compile(r"(?:[aeiou]|hour|honest|heir)", re.IGNORECASE)
_NOT_AN = re.compile(r"(?:uni[^nm]|use|usu|eu|one\b|once)", re.IGNORECASE)
_SLOT = re.compile(r"(?:(a|A) )?([#@]?)([A-Za-z0-9_]+)(?::([fgw]))?\Z")


@dataclass(frozen=True)
class Slot:
    name: str
    words: Sequence[str] | None  # of a class: one is drawn; None: the scope has it
    article: bool
    capital: bool


class Choice:
    """One of several sequences. A rule is one too, filled in when all rules are known, so that rules may call rules."""

    __slots__ = ("options",)

    def __init__(self) -> None:
        self.options: list[Parts] = []


Parts = list["str | Slot | Choice"]


def stream(seed: int, kind: str, number: int) -> random.Random:
    """The random stream of one document: the same on every platform."""
    return random.Random(f"minigen/{seed}/{kind}/{number}")


def pick(draw: Draw, options: Sequence[str]) -> str:
    return options[int(draw() * len(options))]


def with_article(word: str) -> str:
    return f"an {word}" if _AN.match(word) and not _NOT_AN.match(word) else f"a {word}"


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


class Grammar:
    """Word classes and rules, and the templates compiled against them."""

    def __init__(self, classes: Mapping[str, Sequence[str]], rules: Mapping[str, Sequence[str]]) -> None:
        self.classes = classes
        self.rules = rules
        self._compiled: dict[tuple[str, str], Choice] = {}

    def compile(self, template: str, role: str = "h") -> Parts:
        """`template` as parts; errors in it are ours, so they are assertions."""
        names = dict(zip(ROLES["h"] + ROLES[role], ROLES[role] + ROLES["h"], strict=True))
        parts, end = self._sequence(template, 0, names, role)
        assert end == len(template), f"unbalanced: {template!r}"
        return parts

    def _sequence(self, text: str, i: int, names: Mapping[str, str], role: str) -> tuple[Parts, int]:
        parts: Parts = []
        while i < len(text) and text[i] not in "|]":
            if text[i] == "[":
                choice = Choice()
                while text[i] in "[|":
                    option, i = self._sequence(text, i + 1, names, role)
                    choice.options.append(option)
                    assert i < len(text), f"no ] in {text!r}"
                parts.append(choice)
                i += 1
            elif text[i] == "{":
                end = text.index("}", i)
                parts.append(self._slot(text[i + 1 : end], names, role))
                i = end + 1
            else:
                end = min((k for k in (text.find(c, i) for c in "[{|]") if k >= 0), default=len(text))
                parts.append(text[i:end])
                i = end
        return parts, i

    def _slot(self, text: str, names: Mapping[str, str], role: str) -> Slot | Choice:
        match = _SLOT.match(text)
        assert match, f"not a slot: {text!r}"
        article, mark, name, other = match.groups()
        if mark == "@":
            return self.rule(name, other or role)
        low = name[:1].lower() + name[1:]
        words = self.classes[low] if mark else None
        return Slot(names.get(low, low), words, bool(article), name != low or article == "A")

    def rule(self, name: str, role: str = "h") -> Choice:
        key = (name, role)
        if key not in self._compiled:
            self._compiled[key] = choice = Choice()
            choice.options = [self.compile(each, role) for each in self.rules[name]]
        return self._compiled[key]


def write(parts: Parts, scope: Scope, draw: Draw, out: list[str]) -> None:
    """The text of `parts`, piece by piece, onto `out`."""
    for part in parts:
        if type(part) is str:
            out.append(part)
        elif type(part) is Slot:
            words = part.words
            text = scope[part.name] if words is None else words[int(draw() * len(words))]
            if part.article:
                text = with_article(text)
            out.append(text[0].upper() + text[1:] if part.capital and text else text)
        else:
            assert type(part) is Choice
            write(part.options[int(draw() * len(part.options))], scope, draw, out)


def blocks(text: str) -> dict[str, list[str]]:
    """The file format of word lists and rules: `name:`, lines indented by two (more continue one), `#` comments."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if not line[0].isspace():
            name, _, rest = line.partition(":")
            found[name.strip()] = [rest.strip()] if rest.strip() else []
        elif line.startswith("    "):
            found[next(reversed(found))][-1] += " " + line.strip()
        else:
            found[next(reversed(found))].append(line.strip())
    return found
