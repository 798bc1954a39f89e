"""Words for the few-shot tasks: those to train on, those held out, and words that do not exist."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache

from minigen.weights.synthetic.grammar import Draw, pick
from minigen.weights.synthetic.lexicon import animals, classes, facts

Pair = tuple[str, str]  # input and output of a task
NextPair = Callable[[], Pair]
Answer = tuple[str, str, str]  # question, full answer, answer in a word or few
Task = tuple[str, NextPair]  # its description, and what draws its pairs

_WORD_CLASSES = (
    "toy",
    "treasure",
    "fruit",
    "food",
    "color",
    "size",
    "tool",
    "home",
    "vehicle",
)
_NOUN_CLASSES = (
    "toy",
    "wear",
    "treasure",
    "fruit",
    "food",
    "home",
    "vehicle",
    "tool",
    "fragile",
)
_WITHOUT_PLURAL = ("glue", "tape", "string", "scissors", "sheep", "fish", "deer")
# Word class -> the kind of its things.
_KIND_OF_CLASS = {
    "fruit": "fruit",
    "wear": "clothes",
    "vehicle": "vehicle",
    "job": "person",
    "veg": "vegetable",
}


def is_held_out(word: str) -> bool:
    """Whether a word is kept out of the training documents: one in eight is, by its hash."""
    return hashlib.sha256(word.encode()).digest()[0] % 8 == 0


@cache
def pool(name: str, held_out: bool) -> tuple[str, ...]:
    """The words of a pool: those to train on, or those held out for the evaluation."""
    if name == "words":
        candidates = _single_words()
    elif name == "nouns":
        candidates = _countable_nouns()
    elif name == "kinds":
        candidates = list(kinds())
    elif name == "animals":
        candidates = list(animals())
    else:
        candidates = list(facts(name))
    words = tuple(word for word in candidates if is_held_out(word) == held_out)
    assert words, f"the pool {name!r} is empty"
    return words


def _words_of_classes(names: Sequence[str]) -> list[str]:
    words: list[str] = []
    for name in names:
        words += classes()[name]
    return words


def _single_words() -> list[str]:
    """Words in lower case without spaces or hyphens, each once."""
    words = _words_of_classes(_WORD_CLASSES)
    for names in (facts("things"), animals(), facts("past"), facts("opposites")):
        words += names
    once = dict.fromkeys(words)
    return [word for word in once if word.isalpha() and word.islower()]


def _countable_nouns() -> list[str]:
    """Single words that have a plural of their own, each once."""
    once = dict.fromkeys(_words_of_classes(_NOUN_CLASSES) + list(animals()))
    return [word for word in once if word.isalpha() and word not in _WITHOUT_PLURAL]


@cache
def kinds() -> dict[str, str]:
    """Thing -> what kind of thing it is, by the facts first and then by the word classes."""
    by_class = dict.fromkeys(animals(), "animal")
    for name, kind in _KIND_OF_CLASS.items():
        by_class.update(dict.fromkeys(classes()[name], kind))
    kind_of = dict(facts("things"))
    for thing, kind in by_class.items():
        kind_of.setdefault(thing, kind)
    return kind_of


def number(draw: Draw, low: int, high: int) -> int:
    """A whole number from `low` to `high`, both included."""
    return low + int(draw() * (high - low + 1))


def several(draw: Draw, words: Sequence[str], count: int) -> list[str]:
    """`count` different words."""
    chosen: dict[str, None] = {}
    while len(chosen) < count:
        chosen[pick(draw, words)] = None
    return list(chosen)


def nonce(draw: Draw) -> str:
    """A word that does not exist, of one or two syllables."""
    syllable = pick(draw, "bdfgklmnprstvwz") + pick(draw, "aeiou")
    syllable += pick(draw, ("", "", "n", "k", "m", "p", "r", "x", "b", "l"))
    if draw() < 0.5 and len(syllable) > 2:
        return syllable
    syllable += pick(draw, "bdfgklmnprstvz")
    return syllable + pick(draw, ("a", "o", "u", "i", "e", "un", "ab", "ip"))


def nonces(draw: Draw, count: int) -> list[str]:
    """`count` different words that do not exist."""
    words: list[str] = []
    while len(set(words)) < count:
        words = [nonce(draw) for _ in range(count)]
    return words
