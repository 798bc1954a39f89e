"""Questions about words, things, places and jobs, with their answers."""

from __future__ import annotations

from minigen.weights.synthetic.grammar import Draw, capitalized, pick, with_article
from minigen.weights.synthetic.lexicon import facts, plural
from minigen.weights.synthetic.pools import Answer, number

_UNCOUNTED_KINDS = ("drink", "color", "clothes", "furniture")


def word_answer(draw: Draw) -> Answer:
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


def thing_answer(draw: Draw) -> Answer:
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
