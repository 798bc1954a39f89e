"""Simple questions with true answers, made from the facts: what the chats ask, and answer, about the small world."""

from __future__ import annotations

from collections.abc import Callable

from minigen.weights.synthetic.grammar import Draw, pick, with_article
from minigen.weights.synthetic.lexicon import animals, facts, listed, plural

Answer = tuple[str, str, str]  # question, full answer, answer in a word or few


def _n(draw: Draw, low: int, high: int) -> int:
    return low + int(draw() * (high - low + 1))


def _animal(draw: Draw) -> Answer:
    name = pick(draw, tuple(animals()))
    fact = animals()[name]
    one = with_article(name)
    kind = _n(draw, 0, 5)
    if kind == 0 and fact["says"] in ("hum", "click", "blub", "grunt", "bleat"):  # no child says that they do
        kind = 2
    if kind == 3 and name in ("monkey", "kangaroo", "crab", "octopus"):
        kind = 4
    if kind == 0:
        says = fact["says"].capitalize()
        ask = pick(draw, (f"What does {one} say?", f"What sound does {one} make?", f"How does {one} sound?"))
        return ask, pick(draw, (f"{one.capitalize()} says {says.lower()}.", f"{says}! That is what {one} says.")), says
    if kind == 1:
        ask = pick(
            draw, (f"What is a baby {name} called?", f"What is the young of {one}?", f"What do you call a baby {name}?")
        )
        return ask, f"A baby {name} is called {with_article(fact['young'])}.", fact["young"].capitalize()
    if kind == 2:
        ask = pick(
            draw, (f"What does {one} eat?", f"What do {plural(name)} like to eat?", f"What food does {one} like?")
        )
        many = plural(name).capitalize()
        return (
            ask,
            pick(draw, (f"{many} like to eat {fact['food']}.", f"{one.capitalize()} eats {fact['food']}.")),
            fact["food"].capitalize(),
        )
    if kind == 3:
        legs = listed("numbers")[int(fact["legs"])]
        ask = pick(draw, (f"How many legs does {one} have?", f"How many legs has {one}?"))
        return ask, f"{one.capitalize()} has {legs if legs != 'zero' else 'no'} legs.", legs.capitalize()
    if kind == 4:
        kinds = with_article(fact["kind"])
        return f"What is {one}?", f"{one.capitalize()} is {kinds}. It eats {fact['food']}.", kinds.capitalize()
    ask = pick(draw, (f"How does {one} move?", f"What can {one} do?"))
    return ask, f"{one.capitalize()} can {fact['move']}.", fact["move"].capitalize()


def _color(draw: Draw) -> Answer:
    thing = pick(draw, tuple(facts("colors")))
    color = facts("colors")[thing]
    the = f"the {thing}" if thing in ("sky", "sea", "sun", "night") else thing
    the = (
        the
        if the != thing or thing in ("grass", "snow", "milk", "corn", "coal", "mud", "rice", "chocolate", "broccoli")
        else with_article(thing)
    )
    ask = pick(draw, (f"What color is {the}?", f"Which color is {the}?", f"Tell me the color of {the}."))
    return ask, pick(draw, (f"{the.capitalize()} is {color}.", f"It is {color}.")), color.capitalize()


def _sum(draw: Draw) -> Answer:
    words = listed("numbers")
    a, b = _n(draw, 0, 10), _n(draw, 0, 10)
    minus = draw() < 0.35
    a, b = (max(a, b), min(a, b)) if minus else (a, b)
    c, sign, word = (a - b, "-", "minus") if minus else (a + b, "+", "plus")
    if draw() < 0.5:
        ask = pick(
            draw,
            (
                f"What is {a} {sign} {b}?",
                f"How much is {a} {sign} {b}?",
                f"{a} {sign} {b}?",
                f"What is {a} {word} {b}?",
            ),
        )
        return ask, pick(draw, (f"{a} {sign} {b} = {c}.", f"{a} {word} {b} is {c}.", f"It is {c}.")), str(c)
    ask = pick(draw, (f"What is {words[a]} {word} {words[b]}?", f"How much is {words[a]} {word} {words[b]}?"))
    return ask, f"{words[a].capitalize()} {word} {words[b]} is {words[c]}.", words[c].capitalize()


def _count(draw: Draw) -> Answer:
    words = listed("numbers")
    low = _n(draw, 0, 12)
    high = low + _n(draw, 2, 7)
    if draw() < 0.4:
        row = ", ".join(words[low : high + 1])
        return (
            pick(
                draw,
                (f"Count from {words[low]} to {words[high]}.", f"Can you count from {words[low]} to {words[high]}?"),
            ),
            f"{row.capitalize()}.",
            row,
        )
    n = _n(draw, 1, 19)
    if draw() < 0.5:
        return (
            pick(draw, (f"What comes after {words[n]}?", f"Which number is after {words[n]}?")),
            f"After {words[n]} comes {words[n + 1]}.",
            words[n + 1].capitalize(),
        )
    return (
        pick(draw, (f"What comes before {words[n]}?", f"Which number is before {words[n]}?")),
        f"Before {words[n]} comes {words[n - 1]}.",
        words[n - 1].capitalize(),
    )


def _calendar(draw: Draw) -> Answer:
    kind = pick(draw, ("days", "months"))
    row = listed(kind)
    n = _n(draw, 0, len(row) - 1)
    one = kind[:-1]
    if draw() < 0.12:
        how = {"days": ("How many days are in a week?", "There are seven days in a week.", "Seven")}
        return how.get(kind, ("How many months are in a year?", "There are twelve months in a year.", "Twelve"))
    other, word = (row[(n + 1) % len(row)], "after") if draw() < 0.6 else (row[n - 1], "before")
    ask = pick(
        draw, (f"What {one} comes {word} {row[n]}?", f"Which {one} is {word} {row[n]}?", f"What is {word} {row[n]}?")
    )
    return ask, pick(draw, (f"{other} comes {word} {row[n]}.", f"It is {other}.")), other


def _word(draw: Draw) -> Answer:
    kind = _n(draw, 0, 2)
    if kind == 0:
        word = pick(draw, tuple(facts("opposites")))
        other = facts("opposites")[word]
        ask = pick(
            draw, (f"What is the opposite of {word}?", f"Tell me the opposite of {word}.", f"What is not {word}?")
        )
        return ask, pick(draw, (f"The opposite of {word} is {other}.", f"It is {other}.")), other.capitalize()
    if kind == 1:
        counted = tuple(
            word for word, kind in facts("things").items() if kind not in ("drink", "color", "clothes", "furniture")
        )
        word = pick(draw, counted + tuple(facts("irregular")))
        many = plural(word)
        ask = pick(
            draw,
            (f"What is the plural of {word}?", f"One {word}, two what?", f"What do you say for more than one {word}?"),
        )
        return ask, pick(draw, (f"The plural of {word} is {many}.", f"One {word}, two {many}.")), many.capitalize()
    word = pick(draw, tuple(facts("past")))
    past = facts("past")[word]
    ask = pick(
        draw,
        (f"What is the past of {word}?", f"Today I {word}. Yesterday I ...?", f"How do you say {word} in the past?"),
    )
    return (
        ask,
        pick(draw, (f"The past of {word} is {past}.", f"Today I {word}. Yesterday I {past}.")),
        past.capitalize(),
    )


def _thing(draw: Draw) -> Answer:
    kind = _n(draw, 0, 3)
    if kind == 0:
        word = pick(draw, tuple(facts("uses")))
        use = facts("uses")[word]
        one = word if word in ("glue", "soap", "scissors") else with_article(word)
        do = "are" if word == "scissors" else "is"
        ask = pick(
            draw,
            (
                f"What {do} {one} for?",
                f"What can you do with {one}?",
                f"What {do} {one} used for?",
                f"What {do} {one}?",
            ),
        )
        return ask, pick(draw, (f"You can use {one} to {use}.", f"With {one}, you can {use}.")), f"To {use}"
    if kind == 1:
        word = pick(draw, tuple(facts("places")))
        does = facts("places")[word]
        return (
            f"What is {with_article(word)}?",
            f"{with_article(word).capitalize()} is a place. {does[0].upper()}{does[1:]}.",
            "A place",
        )
    if kind == 2:
        word = pick(draw, tuple(facts("jobs")))
        ask = pick(
            draw,
            (f"What does {with_article(word)} do?", f"What is {with_article(word)}?", f"Who is {with_article(word)}?"),
        )
        return ask, f"{with_article(word).capitalize()} {facts('jobs')[word]}.", facts("jobs")[word].capitalize()
    word = pick(draw, tuple(facts("things")))
    group = facts("things")[word]
    mass = word if group in ("drink", "color") or word in ("corn", "broccoli") else with_article(word)
    ask = pick(draw, (f"What is {mass}?", f"What kind of thing is {mass}?"))
    full = (
        "It is clothing"
        if group == "clothes"
        else f"{mass.capitalize()} is {group if group == 'furniture' else with_article(group)}"
    )
    return ask, full + ".", group.capitalize()


_PAIRS = (
    ("an elephant", "a mouse"), ("a house", "a cup"), ("a bear", "an ant"), ("a tree", "a flower"),
    ("a castle", "a box"),
    ("the sun", "a ball"), ("a cow", "a cat"), ("a truck", "a toy car"), ("a whale", "a fish"), ("a horse", "a frog"),
)  # fmt: skip
_PARTS = (
    ("see", "eyes"), ("hear", "ears"), ("smell", "nose"), ("walk", "legs"), ("eat", "mouth"), ("think", "head"),
    ("hold things", "hands"), ("bite", "teeth"), ("run", "feet"),
)  # fmt: skip
_CAN = {
    "fly": ("bird", "owl", "bee", "butterfly", "parrot", "duck", "goose"),
    "swim": ("fish", "duck", "frog", "turtle", "dog", "penguin", "goose", "bear", "whale", "dolphin", "octopus"),
}
_CANNOT = {
    "fly": ("dog", "cat", "fish", "cow", "bear", "penguin", "pig", "frog"),
    "swim": ("butterfly", "bee", "snail"),
}


def _which(draw: Draw) -> Answer:
    kind = _n(draw, 0, 2)
    if kind == 0:
        big, small = _PAIRS[int(draw() * len(_PAIRS))]
        first, second = (big, small) if draw() < 0.5 else (small, big)
        (one, other, word) = (big, small, "bigger") if draw() < 0.5 else (small, big, "smaller")
        full = f"{one.capitalize()} is {word} than {other}."
        return f"Which is {word}, {first} or {second}?", full, one.capitalize()
    if kind == 1:
        verb, can = pick(draw, ("fly", "swim")), draw() < 0.5
        many = plural(pick(draw, (_CAN if can else _CANNOT)[verb]))
        yes = "Yes" if can else "No"
        return f"Can {many} {verb}?", f"{yes}, {many} {'can' if can else 'cannot'} {verb}.", yes
    act, part = _PARTS[int(draw() * len(_PARTS))]
    ask = pick(draw, (f"What do you use to {act}?", f"With what do you {act}?"))
    return ask, f"You {act} with your {part}.", part.capitalize()


KINDS: tuple[Callable[[Draw], Answer], ...] = (
    _animal, _animal, _color, _sum, _sum, _count, _calendar, _word, _word, _thing, _thing, _which,
)  # fmt: skip


def question(draw: Draw) -> Answer:
    """A question, its answer in a sentence, and in a word or few."""
    return KINDS[int(draw() * len(KINDS))](draw)
