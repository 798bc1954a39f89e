"""Words for the few-shot tasks: those to train on, those held out, and words that do not exist."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache

from minigen.weights.synthetic.grammar import Draw, pick
from minigen.weights.synthetic.lexicon import animals, classes, facts

Pair = tuple[str, str]
Next = Callable[[], Pair]
Made = tuple[str, Next]


def held_out(word: str) -> bool:
    """Whether a word is kept from the training documents: one in eight, by its hash."""
    return hashlib.sha256(word.encode()).digest()[0] % 8 == 0


@cache
def pool(name: str, held: bool) -> tuple[str, ...]:
    """The words of a pool: those that are trained on, or those held out for the evaluation."""
    if name == "words":
        many: tuple[str, ...] = ("toy", "treasure", "fruit", "food", "color", "size", "tool", "home", "vehicle")
        words = (
            [w for each in many for w in classes()[each]]
            + list(facts("things"))
            + list(animals())
            + list(facts("past"))
            + list(facts("opposites"))
        )
        found = tuple(dict.fromkeys(w for w in words if w.isalpha() and w.islower()))
    elif name == "nouns":  # that can be counted
        many = ("toy", "wear", "treasure", "fruit", "food", "home", "vehicle", "tool", "fragile")
        words = [w for each in many for w in classes()[each]] + list(animals())
        found = tuple(
            dict.fromkeys(
                w
                for w in words
                if w.isalpha() and w not in ("glue", "tape", "string", "scissors", "sheep", "fish", "deer")
            )
        )
    elif name == "kinds":
        found = tuple(kinds())
    elif name == "animals":
        found = tuple(animals())
    else:
        found = tuple(facts(name))
    kept = tuple(word for word in found if held_out(word) == held)
    assert kept, f"the pool {name!r} is empty"
    return kept


@cache
def kinds() -> dict[str, str]:
    """Thing -> what kind of thing it is: the facts, and the word classes that are kinds."""
    found = dict.fromkeys(animals(), "animal")
    for name, kind in (
        ("fruit", "fruit"),
        ("wear", "clothes"),
        ("vehicle", "vehicle"),
        ("job", "person"),
        ("veg", "vegetable"),
    ):
        found.update(dict.fromkeys(classes()[name], kind))
    return {**facts("things"), **{thing: kind for thing, kind in found.items() if thing not in facts("things")}}


def number(draw: Draw, low: int, high: int) -> int:
    return low + int(draw() * (high - low + 1))


def several(draw: Draw, words: Sequence[str], count: int) -> list[str]:
    """`count` different words."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[pick(draw, words)] = None
    return list(found)


def nonce(draw: Draw) -> str:
    """A word that does not exist, of one or two syllables."""
    one = (
        pick(draw, tuple("bdfgklmnprstvwz"))
        + pick(draw, tuple("aeiou"))
        + pick(draw, ("", "", "n", "k", "m", "p", "r", "x", "b", "l"))
    )
    return (
        one
        if draw() < 0.5 and len(one) > 2
        else one + pick(draw, tuple("bdfgklmnprstvz")) + pick(draw, ("a", "o", "u", "i", "e", "un", "ab", "ip"))
    )
