"""Simple questions with true answers, made from the facts; the chats ask them."""

from __future__ import annotations

from collections.abc import Callable

from minigen.weights.synthetic.grammar import Draw, capitalized, pick, with_article
from minigen.weights.synthetic.lexicon import animals, facts, listed, plural
from minigen.weights.synthetic.pools import number

Answer = tuple[str, str, str]  # question, full answer, answer in a word or few

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


# -- Numbers, days and months --
def _sum(draw: Draw) -> Answer:
    a = number(draw, 0, 10)
    b = number(draw, 0, 10)
    if draw() < 0.35:
        a, b = max(a, b), min(a, b)
        result, sign, word = a - b, "-", "minus"
    else:
        result, sign, word = a + b, "+", "plus"
    if draw() < 0.5:
        questions = (
            f"What is {a} {sign} {b}?",
            f"How much is {a} {sign} {b}?",
            f"{a} {sign} {b}?",
            f"What is {a} {word} {b}?",
        )
        asked = pick(draw, questions)
        answers = (
            f"{a} {sign} {b} = {result}.",
            f"{a} {word} {b} is {result}.",
            f"It is {result}.",
        )
        return asked, pick(draw, answers), str(result)
    words = listed("numbers")
    first, second, total = words[a], words[b], words[result]
    questions_in_words = (
        f"What is {first} {word} {second}?",
        f"How much is {first} {word} {second}?",
    )
    full = f"{first.capitalize()} {word} {second} is {total}."
    return pick(draw, questions_in_words), full, total.capitalize()


def _count(draw: Draw) -> Answer:
    words = listed("numbers")
    low = number(draw, 0, 12)
    high = low + number(draw, 2, 7)
    if draw() < 0.4:
        row = ", ".join(words[low : high + 1])
        questions = (
            f"Count from {words[low]} to {words[high]}.",
            f"Can you count from {words[low]} to {words[high]}?",
        )
        return pick(draw, questions), f"{row.capitalize()}.", row
    n = number(draw, 1, 19)
    if draw() < 0.5:
        word, neighbor = "after", words[n + 1]
    else:
        word, neighbor = "before", words[n - 1]
    asked = pick(draw, (f"What comes {word} {words[n]}?", f"Which number is {word} {words[n]}?"))
    return asked, f"{word.capitalize()} {words[n]} comes {neighbor}.", neighbor.capitalize()


_DAYS_OF_WEEK = ("How many days are in a week?", "There are seven days in a week.", "Seven")
_MONTHS_OF_YEAR = ("How many months are in a year?", "There are twelve months in a year.", "Twelve")


def _calendar(draw: Draw) -> Answer:
    kind = pick(draw, ("days", "months"))
    names = listed(kind)
    n = number(draw, 0, len(names) - 1)
    if draw() < 0.12:
        return _DAYS_OF_WEEK if kind == "days" else _MONTHS_OF_YEAR
    if draw() < 0.6:
        word, neighbor = "after", names[(n + 1) % len(names)]
    else:
        word, neighbor = "before", names[n - 1]
    one = kind.removesuffix("s")
    questions = (
        f"What {one} comes {word} {names[n]}?",
        f"Which {one} is {word} {names[n]}?",
        f"What is {word} {names[n]}?",
    )
    asked = pick(draw, questions)
    answers = (f"{neighbor} comes {word} {names[n]}.", f"It is {neighbor}.")
    return asked, pick(draw, answers), neighbor


# -- Words --
def _word(draw: Draw) -> Answer:
    kind = number(draw, 0, 2)
    if kind == 0:
        return _opposite(draw)
    if kind == 1:
        return _plural(draw)
    return _past(draw)


def _opposite(draw: Draw) -> Answer:
    word = pick(draw, tuple(facts("opposites")))
    other = facts("opposites")[word]
    questions = (
        f"What is the opposite of {word}?",
        f"Tell me the opposite of {word}.",
        f"What is not {word}?",
    )
    asked = pick(draw, questions)
    answers = (f"The opposite of {word} is {other}.", f"It is {other}.")
    return asked, pick(draw, answers), other.capitalize()


_UNCOUNTED_KINDS = ("drink", "color", "clothes", "furniture")


def _plural(draw: Draw) -> Answer:
    things = facts("things")
    countable = [thing for thing, kind in things.items() if kind not in _UNCOUNTED_KINDS]
    word = pick(draw, [*countable, *facts("irregular")])
    many = plural(word)
    questions = (
        f"What is the plural of {word}?",
        f"One {word}, two what?",
        f"What do you say for more than one {word}?",
    )
    asked = pick(draw, questions)
    answers = (f"The plural of {word} is {many}.", f"One {word}, two {many}.")
    return asked, pick(draw, answers), many.capitalize()


def _past(draw: Draw) -> Answer:
    word = pick(draw, tuple(facts("past")))
    past = facts("past")[word]
    questions = (
        f"What is the past of {word}?",
        f"Today I {word}. Yesterday I ...?",
        f"How do you say {word} in the past?",
    )
    asked = pick(draw, questions)
    answers = (f"The past of {word} is {past}.", f"Today I {word}. Yesterday I {past}.")
    return asked, pick(draw, answers), past.capitalize()


# -- Things, places and jobs --
def _thing(draw: Draw) -> Answer:
    kind = number(draw, 0, 3)
    if kind == 0:
        return _use(draw)
    if kind == 1:
        return _place(draw)
    if kind == 2:
        return _job(draw)
    return _kind_of_thing(draw)


def _use(draw: Draw) -> Answer:
    word = pick(draw, tuple(facts("uses")))
    use = facts("uses")[word]
    verb, one = "is", with_article(word)
    if word == "scissors":
        verb = "are"
    if word in ("glue", "soap", "scissors"):
        one = word
    questions = (
        f"What {verb} {one} for?",
        f"What can you do with {one}?",
        f"What {verb} {one} used for?",
        f"What {verb} {one}?",
    )
    asked = pick(draw, questions)
    answers = (f"You can use {one} to {use}.", f"With {one}, you can {use}.")
    return asked, pick(draw, answers), f"To {use}"


def _place(draw: Draw) -> Answer:
    word = pick(draw, tuple(facts("places")))
    one = with_article(word)
    full = f"{one.capitalize()} is a place. {capitalized(facts('places')[word])}."
    return f"What is {one}?", full, "A place"


def _job(draw: Draw) -> Answer:
    word = pick(draw, tuple(facts("jobs")))
    one = with_article(word)
    job = facts("jobs")[word]
    asked = pick(draw, (f"What does {one} do?", f"What is {one}?", f"Who is {one}?"))
    return asked, f"{one.capitalize()} {job}.", job.capitalize()


def _kind_of_thing(draw: Draw) -> Answer:
    word = pick(draw, tuple(facts("things")))
    kind = facts("things")[word]
    uncounted = kind in ("drink", "color") or word in ("corn", "broccoli")
    one = word if uncounted else with_article(word)
    asked = pick(draw, (f"What is {one}?", f"What kind of thing is {one}?"))
    if kind == "clothes":
        full = "It is clothing."
    elif kind == "furniture":
        full = f"{one.capitalize()} is furniture."
    else:
        full = f"{one.capitalize()} is {with_article(kind)}."
    return asked, full, kind.capitalize()


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
    *(_sum,) * 2,
    _count,
    _calendar,
    *(_word,) * 2,
    *(_thing,) * 2,
    _which,
)


def question(draw: Draw) -> Answer:
    """A question, its answer in a sentence, and its answer in a word or few."""
    make = _BY_WEIGHT[int(draw() * len(_BY_WEIGHT))]
    return make(draw)
