"""One synthetic chat as it grows: what it is about, how the user types, how the bot answers."""

from __future__ import annotations

import random
from functools import cache

from minigen.weights.synthetic import people
from minigen.weights.synthetic.grammar import Draw, Grammar, Scope, pick, write
from minigen.weights.synthetic.lexicon import (
    animals,
    classes,
    facts,
    plural,
    read_blocks,
    split_items,
)

_PIRATE = ("Arr! ", "Ahoy! ", "Arr, matey! ", "Yo ho ho! ")
_POLITE = (" Thank you for asking.", " I hope that helps.", " Have a nice day.")


@cache
def grammar() -> Grammar:
    return Grammar(classes(), read_blocks("chats.txt"))


@cache
def chat_words(name: str) -> tuple[str, ...]:
    """A list of `chat_words.txt`."""
    return tuple(split_items(read_blocks("chat_words.txt")[name]))


def _favorite_food(draw: Draw) -> str:
    if draw() < 0.5:
        return pick(draw, classes()["stuff"])
    fruits = tuple(plural(fruit) for fruit in classes()["fruit"])
    return pick(draw, fruits)


def _scope(draw: Draw) -> Scope:
    """Who talks about what. The order of the draws is part of the output."""
    scope: Scope = {"answer": "", "story": ""}
    color = pick(draw, tuple(dict.fromkeys(classes()["color"])))
    pet = pick(draw, chat_words("pets"))
    things = [thing for thing, of_color in facts("colors").items() if of_color == color]
    scope["name"] = people.child_name(draw)
    scope["fav"] = color
    scope["favthing"] = pick(draw, things or ["flower"])
    scope["food"] = _favorite_food(draw)
    scope["pet"] = pet
    scope["pets"] = plural(pet)
    scope["petfood"] = animals()[pet]["food"]
    scope["mood"] = pick(draw, chat_words("moods"))
    scope["petname"] = people.pet_name(draw)
    scope["toy"] = pick(draw, classes()["toy"])
    scope["bot"] = people.child_name(draw)
    scope["x"] = pick(draw, chat_words("likes"))
    scope["big"] = str(100 + int(draw() * 900))
    scope["big2"] = str(12 + int(draw() * 80))
    if scope["petname"] == scope["name"]:
        scope["name"] = "Nora"
    return scope


class SyntheticChat:
    """One chat as it grows."""

    def __init__(self, rng: random.Random) -> None:
        self.draw = rng.random
        self.messages: list[dict[str, str]] = []
        # How the user types: in lower case, or also without punctuation ("bare").
        self.typing = pick(self.draw, ("plain",) * 5 + ("low", "low", "bare"))
        self.style = "plain"  # of the answers, as the system prompt wants them
        self.told: set[str] = set()  # what the user has told and was not yet asked for
        self.scope = _scope(self.draw)

    def text(self, rule: str) -> str:
        """A sentence of the rule."""
        pieces: list[str] = []
        write([grammar().rule(rule)], self.scope, self.draw, pieces)
        return "".join(pieces).strip()

    def turn(self, user: str, answer: str, short: str = "") -> None:
        """Add a message as this user types it, and the answer as the system prompt wants it."""
        self._add("user", self._typed(user).strip())
        self._add("assistant", self._styled(answer, short))

    def say(self, rule: str, reply: str, short: str = "") -> None:
        """A turn with the user's rule and the bot's."""
        user = self.text("u_" + rule)
        self.turn(user, self.text("b_" + reply), short)

    def mentions(self, word: str) -> bool:
        """Whether any message so far has the word."""
        return any(word in message["content"] for message in self.messages)

    def set_system(self, prompt: str, style: str) -> None:
        """Begin with a system prompt, and answer as it wants."""
        self._add("system", prompt)
        self.style = style

    def _add(self, role: str, content: str) -> None:
        self.messages.append({"role": role, "content": content})

    def _typed(self, text: str) -> str:
        if self.typing != "plain":
            text = text.lower()
        if self.typing == "bare":
            for mark in "?!.,'":
                text = text.replace(mark, "")
        return text

    def _styled(self, answer: str, short: str) -> str:
        if self.style == "word" and short:
            return short
        if self.style == "pirate":
            return pick(self.draw, _PIRATE) + answer
        if self.style == "polite":
            return answer + pick(self.draw, _POLITE)
        if self.style == "animal":
            sound = animals()[self.scope["beast"]]["says"].capitalize()
            return f"{sound}! {answer}"
        if self.style == "loud":
            return answer.upper()
        return answer
