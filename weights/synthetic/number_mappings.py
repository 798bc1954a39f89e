"""The few-shot tasks on numbers, days and months. Each function is a task, as `tasks` describes."""

from __future__ import annotations

from minigen.weights.synthetic.grammar import Draw, pick
from minigen.weights.synthetic.lexicon import listed
from minigen.weights.synthetic.pools import Pair, Task, number, pool

_SUM_DESCRIPTIONS = {
    "+": "Add the numbers.",
    "-": "Take away.",
    "bigger": "Which is more?",
    "smaller": "Which is less?",
}


def counting(draw: Draw, held_out: bool) -> Task:
    """Some steps up or down, in words or digits."""
    step = int(pick(draw, ("1", "1", "1", "-1", "-1", "2", "-2", "3", "10")))
    in_words = draw() < 0.5 and abs(step) < 4
    words = listed("numbers")
    low = max(0, -step)

    def next_pair() -> Pair:
        if in_words:
            n = number(draw, low, 20 - max(0, step))
            return words[n], words[n + step]
        n = number(draw, low, 60)
        return str(n), str(n + step)

    return "Count on." if step > 0 else "Count back.", next_pair


def sums(draw: Draw, held_out: bool) -> Task:
    """Plus, minus, and the bigger or the smaller of two numbers."""
    kind = pick(draw, ("+", "+", "-", "bigger", "smaller"))
    high = 50
    if kind in ("+", "-"):
        high = number(draw, 5, 10)

    def next_pair() -> Pair:
        a = number(draw, 0, high)
        b = number(draw, 0, high)
        if kind == "+":
            return f"{a} + {b}", str(a + b)
        if kind == "-":
            return f"{max(a, b)} - {min(a, b)}", str(abs(a - b))
        if a == b:
            b += 1
        if kind == "bigger":
            return f"{a} {b}", str(max(a, b))
        return f"{a} {b}", str(min(a, b))

    return _SUM_DESCRIPTIONS[kind], next_pair


def calendar(draw: Draw, held_out: bool) -> Task:
    """The day or month before or after."""
    names = listed(pick(draw, ("days", "months")))
    step = int(pick(draw, ("1", "1", "-1")))

    def next_pair() -> Pair:
        index = int(draw() * len(names))
        return names[index], names[(index + step) % len(names)]

    return "What comes next?" if step == 1 else "What comes before?", next_pair


def how_many(draw: Draw, held_out: bool) -> Task:
    """How often a word is repeated."""
    digits = draw() < 0.5

    def next_pair() -> Pair:
        count = number(draw, 1, 6)
        word = pick(draw, pool("words", held_out))
        text = " ".join([word] * count)
        if digits:
            return text, str(count)
        return text, listed("numbers")[count]

    return "How many?", next_pair
