"""Questions about numbers, days and months, with their answers."""

from __future__ import annotations

from minigen.weights.synthetic.grammar import Draw, pick
from minigen.weights.synthetic.lexicon import listed
from minigen.weights.synthetic.pools import Answer, number

_DAYS_OF_WEEK = ("How many days are in a week?", "There are seven days in a week.", "Seven")
_MONTHS_OF_YEAR = ("How many months are in a year?", "There are twelve months in a year.", "Twelve")


def sum_answer(draw: Draw) -> Answer:
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


def count_answer(draw: Draw) -> Answer:
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


def calendar_answer(draw: Draw) -> Answer:
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
