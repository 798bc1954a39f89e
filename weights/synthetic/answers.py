"""Simple questions with true answers, made from the facts; the chats ask them."""

from __future__ import annotations

from collections.abc import Callable

from minigen.weights.synthetic.grammar import Draw, pick, with_article
from minigen.weights.synthetic.lexicon import animals, facts, listed, plural
from minigen.weights.synthetic.number_answers import calendar_answer, count_answer, sum_answer
from minigen.weights.synthetic.pools import Answer, number
from minigen.weights.synthetic.word_answers import thing_answer, word_answer

# -- Animals --
# Sounds that no child says an animal makes, and animals whose legs nobody counts.
_ODD_SOUNDS = ("hum", "click", "blub", "grunt", "bleat")
_UNCLEAR_LEGS = ("monkey", "kangaroo", "crab", "octopus")


def _animal(draw: Draw) -> Answer:
    name = pick(draw, tuple(animals()))
    kind = number(draw, 0, 5)
    if kind == 0 and animals()[name]["says"] not in _ODD_SOUNDS:
        return _animal_sound(draw, name)
    if kind == 1:
        return _animal_young(draw, name)
    if kind in (0, 2):
        return _animal_food(draw, name)
    if kind == 3 and name not in _UNCLEAR_LEGS:
        return _animal_legs(draw, name)
    if kind in (3, 4):
        return _animal_kind(name)
    return _animal_move(draw, name)


def _animal_sound(draw: Draw, name: str) -> Answer:
    one = with_article(name)
    says = animals()[name]["says"].capitalize()
    questions = (
        f"What does {one} say?",
        f"What sound does {one} make?",
        f"How does {one} sound?",
    )
    asked = pick(draw, questions)
    answers = (f"{one.capitalize()} says {says.lower()}.", f"{says}! That is what {one} says.")
    return asked, pick(draw, answers), says


def _animal_young(draw: Draw, name: str) -> Answer:
    young = animals()[name]["young"]
    questions = (
        f"What is a baby {name} called?",
        f"What is the young of {with_article(name)}?",
        f"What do you call a baby {name}?",
    )
    full = f"A baby {name} is called {with_article(young)}."
    return pick(draw, questions), full, young.capitalize()


def _animal_food(draw: Draw, name: str) -> Answer:
    one = with_article(name)
    food = animals()[name]["food"]
    questions = (
        f"What does {one} eat?",
        f"What do {plural(name)} like to eat?",
        f"What food does {one} like?",
    )
    asked = pick(draw, questions)
    answers = (
        f"{plural(name).capitalize()} like to eat {food}.",
        f"{one.capitalize()} eats {food}.",
    )
    return asked, pick(draw, answers), food.capitalize()


def _animal_legs(draw: Draw, name: str) -> Answer:
    one = with_article(name)
    count = listed("numbers")[int(animals()[name]["legs"])]
    asked = pick(draw, (f"How many legs does {one} have?", f"How many legs has {one}?"))
    legs = "no" if count == "zero" else count
    return asked, f"{one.capitalize()} has {legs} legs.", count.capitalize()


def _animal_kind(name: str) -> Answer:
    one = with_article(name)
    kind = with_article(animals()[name]["kind"])
    full = f"{one.capitalize()} is {kind}. It eats {animals()[name]['food']}."
    return f"What is {one}?", full, kind.capitalize()


def _animal_move(draw: Draw, name: str) -> Answer:
    one = with_article(name)
    move = animals()[name]["move"]
    asked = pick(draw, (f"How does {one} move?", f"What can {one} do?"))
    return asked, f"{one.capitalize()} can {move}.", move.capitalize()


# -- Colors --
_ONLY_ONES = ("sky", "sea", "sun", "night")
_UNCOUNTED = ("grass", "snow", "milk", "corn", "coal", "mud", "rice", "chocolate", "broccoli")


def _color(draw: Draw) -> Answer:
    thing = pick(draw, tuple(facts("colors")))
    color = facts("colors")[thing]
    if thing in _ONLY_ONES:
        thing = f"the {thing}"
    elif thing not in _UNCOUNTED:
        thing = with_article(thing)
    questions = (
        f"What color is {thing}?",
        f"Which color is {thing}?",
        f"Tell me the color of {thing}.",
    )
    asked = pick(draw, questions)
    answers = (f"{thing.capitalize()} is {color}.", f"It is {color}.")
    return asked, pick(draw, answers), color.capitalize()


# -- Which of two, who can, and what with --
_BIG_AND_SMALL = (
    ("an elephant", "a mouse"),
    ("a house", "a cup"),
    ("a bear", "an ant"),
    ("a tree", "a flower"),
    ("a castle", "a box"),
    ("the sun", "a ball"),
    ("a cow", "a cat"),
    ("a truck", "a toy car"),
    ("a whale", "a fish"),
    ("a horse", "a frog"),
)
_BODY_PARTS = (
    ("see", "eyes"),
    ("hear", "ears"),
    ("smell", "nose"),
    ("walk", "legs"),
    ("eat", "mouth"),
    ("think", "head"),
    ("hold things", "hands"),
    ("bite", "teeth"),
    ("run", "feet"),
)
_CAN = {
    "fly": ("bird", "owl", "bee", "butterfly", "parrot", "duck", "goose"),
    "swim": (
        *("fish", "duck", "frog", "turtle", "dog", "penguin", "goose", "bear", "whale"),
        *("dolphin", "octopus"),
    ),
}
_CANNOT = {
    "fly": ("dog", "cat", "fish", "cow", "bear", "penguin", "pig", "frog"),
    "swim": ("butterfly", "bee", "snail"),
}


def _which(draw: Draw) -> Answer:
    kind = number(draw, 0, 2)
    if kind == 0:
        return _bigger(draw)
    if kind == 1:
        return _ability(draw)
    act, part = _BODY_PARTS[int(draw() * len(_BODY_PARTS))]
    asked = pick(draw, (f"What do you use to {act}?", f"With what do you {act}?"))
    return asked, f"You {act} with your {part}.", part.capitalize()


def _bigger(draw: Draw) -> Answer:
    big, small = _BIG_AND_SMALL[int(draw() * len(_BIG_AND_SMALL))]
    options = f"{big} or {small}" if draw() < 0.5 else f"{small} or {big}"
    if draw() < 0.5:
        word, right, wrong = "bigger", big, small
    else:
        word, right, wrong = "smaller", small, big
    full = f"{right.capitalize()} is {word} than {wrong}."
    return f"Which is {word}, {options}?", full, right.capitalize()


def _ability(draw: Draw) -> Answer:
    verb = pick(draw, ("fly", "swim"))
    if draw() < 0.5:
        animal, can, yes = pick(draw, _CAN[verb]), "can", "Yes"
    else:
        animal, can, yes = pick(draw, _CANNOT[verb]), "cannot", "No"
    many = plural(animal)
    return f"Can {many} {verb}?", f"{yes}, {many} {can} {verb}.", yes


_BY_WEIGHT: tuple[Callable[[Draw], Answer], ...] = (
    *(_animal,) * 2,
    _color,
    *(sum_answer,) * 2,
    count_answer,
    calendar_answer,
    *(word_answer,) * 2,
    *(thing_answer,) * 2,
    _which,
)


def question(draw: Draw) -> Answer:
    """A question, its answer in a sentence, and its answer in a word or few."""
    make = _BY_WEIGHT[int(draw() * len(_BY_WEIGHT))]
    return make(draw)
