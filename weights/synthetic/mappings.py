"""The few-shot tasks whose mapping is more than one function of a word.

Tables, invented languages, labels, and sentences. Each function is a task, as `tasks` describes them.
"""

from __future__ import annotations

import random

from minigen.weights.synthetic.grammar import Draw, capitalized, pick, with_article
from minigen.weights.synthetic.lexicon import classes, read_blocks
from minigen.weights.synthetic.pools import (
    NextPair,
    Pair,
    Task,
    kinds,
    nonce,
    nonces,
    number,
    pool,
    several,
)

_LABELED = (
    "animal",
    "fruit",
    "clothes",
    "vehicle",
    "vegetable",
    "person",
    "toy",
    "color",
    "tool",
    "body part",
)


def _cycle(draw: Draw, pairs: list[Pair]) -> NextPair:
    """All pairs once, then repeats in any order, but never the same pair twice in a row."""
    drawn = 0
    last = -1

    def next_pair() -> Pair:
        nonlocal drawn, last
        index = drawn
        if index >= len(pairs):
            index = int(draw() * len(pairs))
            while index == last:
                index = int(draw() * len(pairs))
        drawn += 1
        last = index
        return pairs[index]

    return next_pair


def cipher(draw: Draw, held_out: bool) -> Task:
    """A new table from words to words, to invented words or to numbers."""
    size = 8 if held_out else number(draw, 3, 7)
    words = several(draw, pool("words", held_out), 2 * size)
    outputs = words[size:]
    if draw() < 0.35:
        outputs = nonces(draw, size)
    elif draw() < 0.3:
        numbers = random.Random(str(draw())).sample(range(1, 30), size)
        outputs = [str(value) for value in numbers]
    pairs = list(zip(words[:size], outputs, strict=True))
    return "Look up the word in the table.", _cycle(draw, pairs)


def language(draw: Draw, held_out: bool) -> Task:
    """An invented language: a color and an animal, by a new dictionary, in either order."""
    nouns = several(draw, pool("animals", held_out), 3)
    colors = several(draw, _different("color"), 3)
    dictionary = dict(zip(nouns + colors, nonces(draw, 6), strict=True))
    noun_first = draw() < 0.5

    def next_pair() -> Pair:
        noun = pick(draw, nouns)
        color = pick(draw, colors)
        if noun_first:
            return f"{color} {noun}", f"{dictionary[noun]} {dictionary[color]}"
        return f"{color} {noun}", f"{dictionary[color]} {dictionary[noun]}"

    return f"Translate into {nonce(draw).capitalize()}:", next_pair


def _different(name: str) -> tuple[str, ...]:
    """The words of a class, each once."""
    return tuple(dict.fromkeys(classes()[name]))


def _label_names(draw: Draw, count: int, held_out: bool) -> list[str]:
    """Different labels: invented words or, in training documents, sometimes others."""
    names: list[str] = []
    while len(set(names)) < count:
        if held_out or draw() < 0.7:
            names = [nonce(draw) for _ in range(count)]
        else:
            names = several(draw, pool("words", held_out), count)
    return names


def labels(draw: Draw, held_out: bool) -> Task:
    """Two or three kinds of things, each with a label that means nothing."""
    if held_out:
        chosen = several(draw, ("animal", "person", "clothes"), 3)
    else:
        chosen = several(draw, _LABELED, number(draw, 2, 3))
    names = _label_names(draw, len(chosen), held_out)
    label = dict(zip(chosen, names, strict=True))
    things: dict[str, list[str]] = {}
    for kind in chosen:
        of_kind = [thing for thing in pool("kinds", held_out) if kinds()[thing] == kind]
        if of_kind:
            things[kind] = of_kind

    def next_pair() -> Pair:
        kind = pick(draw, tuple(things))
        return pick(draw, things[kind]), label[kind]

    return "Give each thing its label.", next_pair


def frame(draw: Draw, held_out: bool) -> Task:
    """A sentence around the words."""
    sentence = pick(draw, read_blocks("facts.txt")["frames"])
    countable = draw() < 0.6

    def next_pair() -> Pair:
        if countable:
            text = with_article(pick(draw, pool("nouns", held_out)))
        else:
            text = pick(draw, pool("words", held_out))
        return text, capitalized(sentence.format(text))

    return "Make a sentence.", next_pair


def constant(draw: Draw, held_out: bool) -> Task:
    """A word that is always added, or always taken away, before or after."""
    word = pick(draw, pool("words", held_out))
    kind = number(draw, 0, 3)
    before = kind % 2 == 1
    added = kind < 2

    def next_pair() -> Pair:
        other = pick(draw, pool("words", held_out))
        longer = f"{other} {word}"
        if before:
            longer = f"{word} {other}"
        if added:
            return other, longer
        return longer, other

    return "", next_pair


def find_kind(draw: Draw, held_out: bool) -> Task:
    """The color, or the thing, in a phrase of several words."""
    question = "Find the animal."
    if draw() < 0.5:
        question = "Find the color."
    colors = _different("color")
    sizes = _different("size")

    def next_pair() -> Pair:
        thing = pick(draw, pool("animals", held_out))
        color = pick(draw, colors)
        sized = f"a {pick(draw, sizes)} {color} {thing}"
        mine = f"my {pick(draw, sizes)} {color} {thing}"
        text = pick(draw, (sized, f"the {color} {thing}", mine))
        if question == "Find the color.":
            return text, color
        return text, thing

    return question, next_pair


def is_it(draw: Draw, held_out: bool) -> Task:
    """Whether a thing is of a kind."""
    kind = pick(draw, ("animal", "fruit", "clothes", "vehicle", "person"))
    matching = []
    others = []
    for thing in pool("kinds", held_out):
        if kinds()[thing] == kind:
            matching.append(thing)
        else:
            others.append(thing)

    def next_pair() -> Pair:
        if draw() < 0.5:
            return pick(draw, matching), "yes"
        return pick(draw, others), "no"

    if kind == "clothes":
        return "Is it clothes?", next_pair
    return f"Is it {with_article(kind)}?", next_pair
