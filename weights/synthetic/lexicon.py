"""The word lists and facts as Python values, each read once: word classes, plurals, facts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from minigen.weights.synthetic.grammar import blocks

VOWELS = ("a", "e", "i", "o", "u")
ANIMAL_KEYS = ("moved", "move", "cried", "says", "young", "home", "food", "legs", "kind")


@cache
def read_blocks(name: str) -> dict[str, list[str]]:
    """The named blocks of one of the package's text files."""
    folder = files("minigen.weights.synthetic")
    return blocks(folder.joinpath(name).read_text(encoding="utf-8"))


def split_items(lines: Sequence[str]) -> list[str]:
    """The items of a comma-separated list that may go over several lines."""
    items = []
    for item in " ".join(lines).split(","):
        if item.strip():
            items.append(item.strip())
    return items


@cache
def classes() -> dict[str, tuple[str, ...]]:
    """Word class -> its words."""
    words_of = {}
    for heading, lines in read_blocks("words.txt").items():
        name = heading.split(" [")[0]
        words_of[name] = tuple(split_items(lines))
    return words_of


@cache
def adjectives() -> dict[str, tuple[str, ...]]:
    """Word class -> the adjectives that suit its nouns; empty for a class without adjectives."""
    adjectives_of = {}
    for heading in read_blocks("words.txt"):
        name, _, adjective_classes = heading.partition(" [")
        words: list[str] = []
        for adjective_class in adjective_classes.rstrip("]").split():
            words.extend(classes()[adjective_class])
        adjectives_of[name] = tuple(words)
    return adjectives_of


@cache
def facts(name: str) -> dict[str, str]:
    """The `key = value` pairs of a block in `facts.txt`; the first of two equal keys counts."""
    pairs: dict[str, str] = {}
    for item in listed(name):
        key, _, value = item.partition(" = ")
        pairs.setdefault(key.strip(), value.strip())
    return pairs


@cache
def listed(name: str) -> tuple[str, ...]:
    """The items of a block in `facts.txt`."""
    return tuple(split_items(read_blocks("facts.txt")[name]))


@cache
def animals() -> dict[str, dict[str, str]]:
    """Animal -> its facts, by the names in `ANIMAL_KEYS`."""
    facts_of = {}
    for line in read_blocks("facts.txt")["animals"]:
        name, _, rest = line.partition(" = ")
        facts_of[name] = dict(zip(ANIMAL_KEYS, split_items([rest]), strict=True))
    return facts_of


@cache
def plural(noun: str) -> str:
    """The plural of a noun, or of a phrase that ends in one."""
    before, space, last = noun.rpartition(" ")
    irregular = facts("irregular").get(last)
    if irregular is not None:
        return before + space + irregular
    if last.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    if last.endswith("y") and last[-2:-1] not in VOWELS:
        return noun[:-1] + "ies"
    return noun + "s"


def ing(verb: str) -> str:
    """run -> running, bake -> baking, play -> playing."""
    if verb in listed("doubled"):
        return verb + verb[-1] + "ing"
    if verb == "tie":
        return "tying"
    if verb.endswith("e") and not verb.endswith(("ee", "ye")):
        return verb[:-1] + "ing"
    return verb + "ing"


def past(verb: str) -> str:
    """run -> ran, bake -> baked, play -> played, carry -> carried."""
    for irregular in (facts("more past"), facts("past")):
        if verb in irregular:
            return irregular[verb]
    if verb in listed("doubled"):
        return verb + verb[-1] + "ed"
    if verb.endswith("y") and verb[-2] not in VOWELS:
        return verb[:-1] + "ied"
    if verb.endswith("e"):
        return verb + "d"
    return verb + "ed"
