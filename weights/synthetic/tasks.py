"""The tasks of the few-shot documents.

A task takes a random stream and whether to use held-out words. It draws a fresh mapping and gives
its description and a function that draws the next pair.
"""

from __future__ import annotations

from collections.abc import Callable

from minigen.weights.synthetic.grammar import Draw, pick, with_article
from minigen.weights.synthetic.lexicon import animals, facts, plural
from minigen.weights.synthetic.mappings import (
    cipher,
    constant,
    find_kind,
    frame,
    is_it,
    labels,
    language,
)
from minigen.weights.synthetic.number_mappings import calendar, counting, how_many, sums
from minigen.weights.synthetic.pools import Pair, Task, kinds, nonce, number, pool, several

MakeTask = Callable[[Draw, bool], Task]


# -- Tasks on the text of a few words --
def _texts(make: Callable[[list[str]], Pair], low: int, high: int, description: str) -> MakeTask:
    """A task on `low` to `high` words; the number is the same for all inputs of a document."""

    def task(draw: Draw, held_out: bool) -> Task:
        words = pool("words", held_out)
        count = number(draw, low, high)
        # Words that do not exist must be read to be copied; they cannot be known.
        invented = not held_out and draw() < 0.5

        def next_pair() -> Pair:
            if invented:
                return make([nonce(draw) for _ in range(count)])
            return make(several(draw, words, count))

        return description, next_pair

    return task


def _copy(words: list[str]) -> Pair:
    text = " ".join(words)
    return text, text


def _reverse(words: list[str]) -> Pair:
    return " ".join(words), " ".join(reversed(words))


def _word_at(position: int) -> Callable[[list[str]], Pair]:
    def word(words: list[str]) -> Pair:
        return " ".join(words), words[position]

    return word


def _twice(words: list[str]) -> Pair:
    return words[0], f"{words[0]} {words[0]}"


def _capitalize(words: list[str]) -> Pair:
    return words[0], words[0].capitalize()


def _lower(words: list[str]) -> Pair:
    return words[0].capitalize(), words[0]


def _comma(words: list[str]) -> Pair:
    return " ".join(words), f"{', '.join(words[:-1])} and {words[-1]}"


def _first_letter(words: list[str]) -> Pair:
    return words[0], words[0][0]


def _spell(words: list[str]) -> Pair:
    return words[0], " ".join(words[0])


# -- Tasks on facts --
def _fact(
    answer: Callable[[str], str], words: str, description: str, inverse: bool = False
) -> MakeTask:
    """A task that asks for `answer` of each word of a pool; or, if `inverse`, for the word."""

    def task(draw: Draw, held_out: bool) -> Task:
        options = pool(words, held_out)
        # There are few held-out words: each is asked for once before any is asked for again.
        order: list[str] = []
        if held_out:
            order = several(draw, options, len(options))
        drawn = 0

        def next_pair() -> Pair:
            nonlocal drawn
            if held_out:
                word = order[drawn % len(order)]
            else:
                word = pick(draw, options)
            drawn += 1
            if inverse:
                return answer(word), word
            return word, answer(word)

        return description, next_pair

    return task


def _past(word: str) -> str:
    return facts("past")[word]


def _opposite(word: str) -> str:
    return facts("opposites")[word]


def _color(word: str) -> str:
    return facts("colors")[word]


def _use(word: str) -> str:
    return facts("uses")[word]


def _job(word: str) -> str:
    return facts("jobs")[word]


def _kind(word: str) -> str:
    return kinds()[word]


def _of_animal(key: str) -> Callable[[str], str]:
    def fact(name: str) -> str:
        return animals()[name][key]

    return fact


TASKS: dict[str, MakeTask] = {
    "copy": _texts(_copy, 1, 3, "Say it again."),
    "reverse": _texts(_reverse, 2, 3, "Turn the words around."),
    "first-word": _texts(_word_at(0), 2, 4, "Say the first word."),
    "last-word": _texts(_word_at(-1), 2, 4, "Say the last word."),
    "second-word": _texts(_word_at(1), 3, 3, "Say the second word."),
    "twice": _texts(_twice, 1, 1, "Say it two times."),
    "capitalize": _texts(_capitalize, 1, 1, "Write it with a big letter."),
    "lower": _texts(_lower, 1, 1, "Write it with a small letter."),
    "comma": _texts(_comma, 2, 3, "Make a list."),
    "first-letter": _texts(_first_letter, 1, 1, "Say the first letter."),
    "spell": _texts(_spell, 1, 1, "Spell the word."),
    "plural": _fact(plural, "nouns", "Say it for more than one."),
    "singular": _fact(plural, "nouns", "Say it for one.", inverse=True),
    "past": _fact(_past, "past", "Say it for yesterday."),
    "present": _fact(_past, "past", "Say it for today.", inverse=True),
    "opposite": _fact(_opposite, "opposites", "Say the opposite."),
    "color": _fact(_color, "colors", "What color is it?"),
    "sound": _fact(_of_animal("says"), "animals", "What does it say?"),
    "young": _fact(_of_animal("young"), "animals", "What is its baby called?"),
    "home": _fact(_of_animal("home"), "animals", "Where does it live?"),
    "eats": _fact(_of_animal("food"), "animals", "What does it eat?"),
    "category": _fact(_kind, "kinds", "What kind of thing is it?"),
    "article": _fact(with_article, "nouns", "Say it with a or an."),
    "use": _fact(_use, "uses", "What is it for?"),
    "job": _fact(_job, "jobs", "What do they do?"),
    "cipher": cipher,
    "language": language,
    "labels": labels,
    "frame": frame,
    "constant": constant,
    "counting": counting,
    "sums": sums,
    "calendar": calendar,
    "how-many": how_many,
    "find-kind": find_kind,
    "is-it": is_it,
}
