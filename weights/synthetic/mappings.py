"""The few-shot tasks whose mapping is more than one function of a word: tables, invented languages, labels, numbers."""

from __future__ import annotations

import random

from minigen.weights.synthetic.grammar import Draw, pick, with_article
from minigen.weights.synthetic.lexicon import classes, listed
from minigen.weights.synthetic.pools import Made, Next, Pair, kinds, nonce, number, pool, several


def _cycle(draw: Draw, pairs: list[Pair]) -> Next:
    """All pairs once, then repeats in any order, never the same one twice in a row."""
    state = {"n": 0, "last": -1}

    def following() -> Pair:
        k = state["n"]
        if k >= len(pairs):
            k = int(draw() * len(pairs))
            while k == state["last"]:
                k = int(draw() * len(pairs))
        state.update(n=state["n"] + 1, last=k)
        return pairs[k]

    return following


def cipher(draw: Draw, held: bool) -> Made:
    """A table between two sets of words, made anew."""
    size = 8 if held else number(draw, 3, 7)
    words = several(draw, pool("words", held), 2 * size)
    right = words[size:]
    if draw() < 0.35:
        right = []
        while len(set(right)) < size:
            right = [nonce(draw) for _ in range(size)]
    elif draw() < 0.3:
        right = [str(n) for n in random.Random(str(draw())).sample(range(1, 30), size)]
    return "Look up the word in the table.", _cycle(draw, list(zip(words[:size], right, strict=True)))


def language(draw: Draw, held: bool) -> Made:
    """An invented language: two words of a dictionary made anew, in the same or the other order."""
    nouns = several(draw, pool("animals", held), 3)
    signs = several(draw, tuple(dict.fromkeys(classes()["color"])), 3)
    made: list[str] = []
    while len(set(made)) < 6:
        made = [nonce(draw) for _ in range(6)]
    book = dict(zip(nouns + signs, made, strict=True))
    turned = draw() < 0.5

    def following() -> Pair:
        noun, sign = pick(draw, nouns), pick(draw, signs)
        out = (book[noun], book[sign]) if turned else (book[sign], book[noun])
        return f"{sign} {noun}", " ".join(out)

    return f"Translate into {nonce(draw).capitalize()}:", following


_LABELLED = ("animal", "fruit", "clothes", "vehicle", "vegetable", "person", "toy", "color", "tool", "body part")


def labels(draw: Draw, held: bool) -> Made:
    """Two or three kinds of things, each with a label that means nothing."""
    sorts = ("animal", "person", "clothes") if held else _LABELLED
    chosen = several(draw, sorts, 3 if held else number(draw, 2, 3))
    names: list[str] = []
    while len(set(names)) < len(chosen):
        names = (
            [nonce(draw) for _ in chosen] if held or draw() < 0.7 else several(draw, pool("words", held), len(chosen))
        )
    label = dict(zip(chosen, names, strict=True))
    found = {kind: [thing for thing in pool("kinds", held) if kinds()[thing] == kind] for kind in chosen}
    found = {kind: things for kind, things in found.items() if things}

    def following() -> Pair:
        kind = pick(draw, tuple(found))
        return pick(draw, found[kind]), label[kind]

    return "Give each thing its label.", following


FRAMES = (
    "I see {}.", "I like {}.", "Look, {}!", "This is {}.", "Do you have {}?", "I want {}.", "Where is {}?",
    "There was {}.",
    "Once there was {}.", "Mom has {}.", "She found {}.", "He saw {}.", "Can I have {}?", "We need {}.",
    "It is not {}.",
    "Tim has {}.", "Give me {}, please.", "{} is here.", "I dreamed of {}.", "They played with {}.", "No, not {}!",
    "Oh, {}!",
)  # fmt: skip


def frame(draw: Draw, held: bool) -> Made:
    """A sentence around the words."""
    sentence = pick(draw, FRAMES)
    nouns = pool("nouns", held)
    noun = draw() < 0.6

    def following() -> Pair:
        text = with_article(pick(draw, nouns)) if noun else pick(draw, pool("words", held))
        full = sentence.format(text)
        return text, full[0].upper() + full[1:]

    return "Make a sentence.", following


def constant(draw: Draw, held: bool) -> Made:
    """A word that is always added, or always taken away, before or after."""
    word = pick(draw, pool("words", held))
    kind = number(draw, 0, 3)

    def following() -> Pair:
        other = pick(draw, pool("words", held))
        pair = (f"{word} {other}" if kind % 2 else f"{other} {word}", other)
        return (pair[1], pair[0]) if kind < 2 else pair

    return "", following


def counting(draw: Draw, held: bool) -> Made:
    """Some steps up or down, in words or digits."""
    step = pick(draw, ("1", "1", "1", "-1", "-1", "2", "-2", "3", "10"))
    words = draw() < 0.5 and abs(int(step)) < 4
    named = listed("numbers")

    def following() -> Pair:
        n = number(draw, max(0, -int(step)), 20 - max(0, int(step))) if words else number(draw, max(0, -int(step)), 60)
        return (named[n], named[n + int(step)]) if words else (str(n), str(n + int(step)))

    return "Count on." if int(step) > 0 else "Count back.", following


def sums(draw: Draw, held: bool) -> Made:
    """Plus, minus, the bigger or the smaller of two numbers."""
    kind = pick(draw, ("+", "+", "-", "bigger", "smaller"))
    high = number(draw, 5, 10) if kind in "+-" else 50

    def following() -> Pair:
        a, b = number(draw, 0, high), number(draw, 0, high)
        if kind == "+":
            return f"{a} + {b}", str(a + b)
        a, b = (a, b + (a == b)) if kind != "-" else (max(a, b), min(a, b))
        if kind == "-":
            return f"{a} - {b}", str(a - b)
        return f"{a} {b}", str(max(a, b) if kind == "bigger" else min(a, b))

    return {"+": "Add the numbers.", "-": "Take away.", "bigger": "Which is more?", "smaller": "Which is less?"}[
        kind
    ], following


def calendar(draw: Draw, held: bool) -> Made:
    row = listed(pick(draw, ("days", "months")))
    step = pick(draw, ("1", "1", "-1"))
    return "What comes next?" if step == "1" else "What comes before?", lambda: (
        lambda n: (row[n], row[(n + int(step)) % len(row)])
    )(int(draw() * len(row)))


def how_many(draw: Draw, held: bool) -> Made:
    """How often a word is there."""
    digits = draw() < 0.5

    def following() -> Pair:
        n = number(draw, 1, 6)
        return " ".join([pick(draw, pool("words", held))] * n), str(n) if digits else listed("numbers")[n]

    return "How many?", following


def find_kind(draw: Draw, held: bool) -> Made:
    """The colour, or the thing, in a phrase of several words."""
    color = draw() < 0.5
    colors, sizes = tuple(dict.fromkeys(classes()["color"])), tuple(dict.fromkeys(classes()["size"]))

    def following() -> Pair:
        thing, sign = pick(draw, pool("animals", held)), pick(draw, colors)
        text = pick(
            draw,
            (f"a {pick(draw, sizes)} {sign} {thing}", f"the {sign} {thing}", f"my {pick(draw, sizes)} {sign} {thing}"),
        )
        return text, sign if color else thing

    return "Find the color." if color else "Find the animal.", following


def is_it(draw: Draw, held: bool) -> Made:
    """Whether a thing is of a kind."""
    kind = pick(draw, ("animal", "fruit", "clothes", "vehicle", "person"))
    yes = [t for t in pool("kinds", held) if kinds()[t] == kind]
    no = [t for t in pool("kinds", held) if kinds()[t] != kind]

    def following() -> Pair:
        right = draw() < 0.5
        return pick(draw, yes if right else no), "yes" if right else "no"

    return f"Is it {kind if kind in ('clothes', 'furniture') else with_article(kind)}?", following
