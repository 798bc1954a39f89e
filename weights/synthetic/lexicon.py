"""The word lists and facts as Python values, read once: word classes with their adjectives, plurals, pairs of facts."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from minigen.weights.synthetic.grammar import blocks

_IES = ("a", "e", "i", "o", "u")


def _read(name: str) -> dict[str, list[str]]:
    folder = files("minigen.weights.synthetic")
    return blocks(folder.joinpath(name).read_text(encoding="utf-8"))


def _items(lines: list[str]) -> list[str]:
    return [each.strip() for each in " ".join(lines).split(",") if each.strip()]


@cache
def classes() -> dict[str, tuple[str, ...]]:
    """Word class -> its words."""
    return {name.split(" [")[0]: tuple(_items(lines)) for name, lines in _read("words.txt").items()}


@cache
def adjectives() -> dict[str, tuple[str, ...]]:
    """Word class -> the adjectives that go with its nouns; none where the class has none."""
    found = {}
    for name in _read("words.txt"):
        noun, _, listed = name.partition(" [")
        found[noun] = tuple(word for each in listed.rstrip("]").split() for word in classes()[each])
    return found


@cache
def facts(name: str) -> dict[str, str]:
    """Pairs of `facts.txt`. A later pair with the same key gives way to the first."""
    found: dict[str, str] = {}
    for each in _items(_read("facts.txt")[name]):
        key, _, value = each.partition(" = ")
        found.setdefault(key.strip(), value.strip())
    return found


@cache
def listed(name: str) -> tuple[str, ...]:
    return tuple(_items(_read("facts.txt")[name]))


@cache
def animals() -> dict[str, dict[str, str]]:
    """Animal -> moved, move, cried, says, young, home, food, legs, kind."""
    keys = ("moved", "move", "cried", "says", "young", "home", "food", "legs", "kind")
    found = {}
    for line in _read("facts.txt")["animals"]:
        name, _, rest = line.partition(" = ")
        found[name] = dict(zip(keys, _items([rest]), strict=True))
    return found


@cache
def plural(noun: str) -> str:
    """The plural of a noun; of a phrase, that of its last word."""
    before, space, last = noun.rpartition(" ")
    irregular = facts("irregular").get(last)
    if irregular is not None:
        return before + space + irregular
    if last.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    if last.endswith("y") and last[-2:-1] not in _IES:
        return noun[:-1] + "ies"
    return noun + "s"


_DOUBLED = frozenset(
    (
        "run",
        "swim",
        "dig",
        "hop",
        "skip",
        "spin",
        "clap",
        "knit",
        "pat",
        "hug",
        "stop",
        "sit",
        "get",
        "cut",
        "win",
        "mop",
        "nap",
        "wrap",
    )
)


def ing(verb: str) -> str:
    """running, baking, playing."""
    if verb in _DOUBLED:
        return verb + verb[-1] + "ing"
    if verb == "tie":
        return "tying"
    return (verb[:-1] if verb.endswith("e") and not verb.endswith(("ee", "ye")) else verb) + "ing"


def past(verb: str) -> str:
    """ran, baked, played, carried."""
    known = {
        **facts("past"),
        "spin": "spun",
        "swing": "swung",
        "hang": "hung",
        "lead": "led",
        "bend": "bent",
        "dream": "dreamed",
    }
    if verb in known:
        return known[verb]
    if verb in _DOUBLED:
        return verb + verb[-1] + "ed"
    if verb.endswith("y") and verb[-2] not in _IES:
        return verb[:-1] + "ied"
    return verb + ("d" if verb.endswith("e") else "ed")
