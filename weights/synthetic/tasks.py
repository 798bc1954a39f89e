"""The tasks of the few-shot documents: each call draws a fresh mapping, and gives pairs of it until enough are there.

A task takes the draw and whether to use held-out words, and gives (description, next pair).
"""

from __future__ import annotations

from collections.abc import Callable

from minigen.weights.synthetic.grammar import Draw, pick, with_article
from minigen.weights.synthetic.lexicon import animals, facts, plural
from minigen.weights.synthetic.mappings import (
    calendar,
    cipher,
    constant,
    counting,
    find_kind,
    frame,
    how_many,
    is_it,
    labels,
    language,
    sums,
)
from minigen.weights.synthetic.pools import Made, Pair, kinds, nonce, number, pool, several


def _texts(make: Callable[[list[str]], Pair], low: int, high: int, description: str) -> Callable[[Draw, bool], Made]:
    """A task on a few words: the same way with all of the document's inputs."""

    def task(draw: Draw, held: bool) -> Made:
        words = pool("words", held)
        count = number(draw, low, high)
        if not held and draw() < 0.5:  # words that do not exist: what is copied is then read, not known
            return description, lambda: make([nonce(draw) for _ in range(count)])
        return description, lambda: make(several(draw, words, count))

    return task


def _fact(
    pairs: Callable[[str], str], name: str, description: str, turned: bool = False
) -> Callable[[Draw, bool], Made]:
    def task(draw: Draw, held: bool) -> Made:
        order = several(draw, pool(name, held), len(pool(name, held))) if held else None
        state = {"n": -1}

        def following() -> Pair:
            state["n"] += 1
            word = order[state["n"] % len(order)] if order else pick(draw, pool(name, held))
            return (pairs(word), word) if turned else (word, pairs(word))

        return description, following

    return task


TASKS: dict[str, Callable[[Draw, bool], Made]] = {
    "copy": _texts(lambda w: (" ".join(w),) * 2, 1, 3, "Say it again."),
    "reverse": _texts(lambda w: (" ".join(w), " ".join(w[::-1])), 2, 3, "Turn the words around."),
    "first-word": _texts(lambda w: (" ".join(w), w[0]), 2, 4, "Say the first word."),
    "last-word": _texts(lambda w: (" ".join(w), w[-1]), 2, 4, "Say the last word."),
    "second-word": _texts(lambda w: (" ".join(w), w[1]), 3, 3, "Say the second word."),
    "twice": _texts(lambda w: (w[0], f"{w[0]} {w[0]}"), 1, 1, "Say it two times."),
    "capitalize": _texts(lambda w: (w[0], w[0].capitalize()), 1, 1, "Write it with a big letter."),
    "lower": _texts(lambda w: (w[0].capitalize(), w[0]), 1, 1, "Write it with a small letter."),
    "comma": _texts(lambda w: (" ".join(w), ", ".join(w[:-1]) + " and " + w[-1]), 2, 3, "Make a list."),
    "first-letter": _texts(lambda w: (w[0], w[0][0]), 1, 1, "Say the first letter."),
    "spell": _texts(lambda w: (w[0], " ".join(w[0])), 1, 1, "Spell the word."),
    "plural": _fact(plural, "nouns", "Say it for more than one."),
    "singular": _fact(plural, "nouns", "Say it for one.", turned=True),
    "past": _fact(lambda w: facts("past")[w], "past", "Say it for yesterday."),
    "present": _fact(lambda w: facts("past")[w], "past", "Say it for today.", turned=True),
    "opposite": _fact(lambda w: facts("opposites")[w], "opposites", "Say the opposite."),
    "color": _fact(lambda w: facts("colors")[w], "colors", "What color is it?"),
    "sound": _fact(lambda w: animals()[w]["says"], "animals", "What does it say?"),
    "young": _fact(lambda w: animals()[w]["young"], "animals", "What is its baby called?"),
    "home": _fact(lambda w: animals()[w]["home"], "animals", "Where does it live?"),
    "eats": _fact(lambda w: animals()[w]["food"], "animals", "What does it eat?"),
    "category": _fact(lambda w: kinds()[w], "kinds", "What kind of thing is it?"),
    "article": _fact(with_article, "nouns", "Say it with a or an."),
    "use": _fact(lambda w: facts("uses")[w], "uses", "What is it for?"),
    "job": _fact(lambda w: facts("jobs")[w], "jobs", "What do they do?"),
    "cipher": cipher, "language": language, "labels": labels, "frame": frame, "constant": constant,
    "counting": counting, "sums": sums, "calendar": calendar, "how-many": how_many,
    "find-kind": find_kind, "is-it": is_it,
}  # fmt: skip
