"""Chats: rows of messages in which a small model is greeted, asked, told things that it remembers, and bid goodbye.

A chat is a walk over topics; each adds one or more turns. What the user tells (a name, a pet, a colour, a
food) is kept, and asked for later. A system prompt, where there is one, is obeyed in every answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from importlib.resources import files

from minigen.weights.synthetic import people
from minigen.weights.synthetic.answers import question
from minigen.weights.synthetic.grammar import Grammar, Scope, blocks, pick, stream, write
from minigen.weights.synthetic.lexicon import animals, classes, facts, plural
from minigen.weights.synthetic.plotfile import subjects
from minigen.weights.synthetic.stories import short_story

Row = dict[str, list[dict[str, str]]]
MOODS = ("sad", "tired", "bored", "lonely", "angry", "scared", "worried", "sick", "upset", "hungry", "cold")
LIKES = ("dogs", "cats", "stories", "animals", "music", "the sea", "rain", "snow", "flowers", "books", "games",
"birds", "cake", "colors",
         "the sun", "the moon", "trees", "trains", "horses", "bears", "stars", "dinosaurs", "dragons", "songs",
         "the park")  # fmt: skip


@cache
def grammar() -> Grammar:
    text = files("minigen.weights.synthetic").joinpath("chats.txt").read_text(encoding="utf-8")
    return Grammar(classes(), blocks(text))


class Chat:
    """One chat as it grows."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.draw = rng.random
        self.rows: list[dict[str, str]] = []
        self.style = pick(self.draw, ("plain",) * 5 + ("low", "low", "bare"))
        self.answer = "plain"  # how the system prompt wants the answers
        self.known: set[str] = set()
        draw = self.draw
        color = pick(draw, tuple(dict.fromkeys(classes()["color"])))
        pet = pick(
            draw,
            (
                "dog",
                "cat",
                "bird",
                "fish",
                "bunny",
                "mouse",
                "horse",
                "turtle",
                "hen",
                "frog",
                "duck",
                "puppy",
                "kitten",
            ),
        )
        things = [thing for thing, c in facts("colors").items() if c == color] or ["flower"]
        self.scope: Scope = {
            "name": pick(draw, people.BOYS if draw() < 0.5 else people.GIRLS),
            "fav": color, "favthing": pick(draw, things),
            "food": pick(draw, classes()["stuff"] if draw() < 0.5 else tuple(plural(f) for f in classes()["fruit"])),
            "pet": pet, "pets": plural(pet), "petfood": animals()[pet]["food"], "mood": pick(draw, MOODS),
            "petname": pick(draw, people.HE_PETS if draw() < 0.5 else people.SHE_PETS),
            "toy": pick(draw, classes()["toy"]),
            "bot": pick(draw, people.BOYS if draw() < 0.5 else people.GIRLS), "x": pick(draw, LIKES),
            "big": str(100 + int(draw() * 900)), "big2": str(12 + int(draw() * 80)), "answer": "", "story": "",
        }  # fmt: skip
        if self.scope["petname"] == self.scope["name"]:
            self.scope["name"] = "Nora"

    def text(self, rule: str) -> str:
        out: list[str] = []
        write([grammar().rule(rule)], self.scope, self.draw, out)
        return " ".join("".join(out).split(" ")).strip()

    def turn(self, user: str, assistant: str, short: str = "") -> None:
        """A user's message, in the user's style, and the answer, in the style asked for by the system prompt."""
        if self.style != "plain":
            user = user.lower()
        if self.style == "bare":
            user = user.replace("?", "").replace("!", "").replace(".", "").replace(",", "").replace("'", "")
        if self.answer == "word" and short:
            assistant = short
        elif self.answer == "pirate":
            assistant = pick(self.draw, ("Arr! ", "Ahoy! ", "Arr, matey! ", "Yo ho ho! ")) + assistant
        elif self.answer == "polite":
            assistant += pick(self.draw, (" Thank you for asking.", " I hope that helps.", " Have a nice day."))
        elif self.answer == "animal":
            assistant = f"{animals()[self.scope['beast']]['says'].capitalize()}! {assistant}"
        elif self.answer == "loud":
            assistant = assistant.upper()
        self.rows += [{"role": "user", "content": user.strip()}, {"role": "assistant", "content": assistant}]

    def say(self, rule: str, reply: str, short: str = "") -> None:
        user, assistant = self.text("u_" + rule), self.text("b_" + reply)
        self.turn(user, assistant, short)


def _hello(chat: Chat) -> None:
    chat.say("hello", "hello", "Hello!")
    last = chat.rows[-1]["content"]
    if "What is your name" in last and chat.draw() < 0.7:
        _name(chat)
    elif ("How are you" in last or "And you?" in last) and chat.draw() < 0.7:
        if chat.draw() < 0.65:
            chat.say("fine", "fine", "Good!")
        else:
            _sad(chat)


def _sad(chat: Chat) -> None:
    chat.say("sad", "sad", "Sorry.")
    if chat.draw() < 0.6:
        chat.say("sadwhy", "sadwhy", "Sorry.")


def _name(chat: Chat) -> None:
    if "name" not in chat.known:
        chat.known.add("name")
        chat.say("iam_name", "iam_name", "Hello!")


def _fact(chat: Chat) -> None:
    """The user tells something that will be asked for."""
    kind = pick(chat.draw, ("fav", "food", "pet"))
    if kind not in chat.known:
        chat.known.add(kind)
        chat.say(kind, kind, "Nice!")


def _recall(chat: Chat) -> None:
    """A question about what the user told; about the name also where it was never told."""
    told = sorted(chat.known)
    if told:
        kind = pick(chat.draw, told)
        chat.known.discard(kind)
        rule, key = {"name": ("myname", "name"), "pet": ("petq", "petname")}.get(kind, (kind + "q", kind))
        chat.say(rule, rule, chat.scope[key].capitalize() + ".")
    elif not any(chat.scope["name"] in row["content"] for row in chat.rows):
        chat.say("myname", "noname", "Unknown.")


def _ask(chat: Chat) -> None:
    ask, full, short = question(chat.draw)
    if chat.answer in ("plain", "polite") and chat.draw() < 0.12:
        full = f"{short}."
    chat.turn(ask, full, short + ".")
    if chat.answer == "plain" and chat.draw() < 0.08:
        chat.scope["answer"] = full
        chat.turn("Are you sure?", chat.text("b_sure"), "Yes.")


def _story(chat: Chat) -> None:
    names = list(subjects())
    chat.scope["x"] = about = pick(chat.draw, names)
    if chat.answer in ("word", "loud"):
        return
    if chat.draw() < 0.2:
        chat.say("storyask", "storyask")
        chat.scope["x"] = about
        chat.scope["story"] = short_story(chat.draw, about)
        chat.turn(chat.text("u_about"), chat.scope["story"])
    else:
        chat.scope["story"] = short_story(chat.draw, about)
        chat.say("story", "story")
    if chat.draw() < 0.35:
        chat.say("liked", "liked")


def _plain(*rules: str) -> Callable[[Chat], None]:
    def topic(chat: Chat) -> None:
        rule = pick(chat.draw, rules)
        if chat.answer == "word":
            return
        chat.scope["x"] = pick(chat.draw, LIKES)
        reply = "named" if rule == "yourname" and chat.answer == "named" else rule
        chat.say(rule, reply, "")

    return topic


_TALK = _plain("howareyou", "yourname", "glad", "like", "like", "cando", "bored", "hard", "hard", "old", "joke")
TOPICS = (_ask, _ask, _ask, _ask, _story, _fact, _recall, _recall, _name, _TALK, _TALK, _sad)


def _system(chat: Chat) -> None:
    """A system prompt and the way of answering that it asks for."""
    kind = pick(chat.draw, ("word", "word", "named", "named", "pirate", "polite", "animal", "kind", "loud"))
    chat.scope["beast"] = beast = pick(chat.draw, tuple(animals()))
    name = chat.scope["bot"]
    options = {
        "word": ("Answer in one word.", "Use few words.", "Give short answers.", "Answer with one word only."),
        "named": (f"You are called {name}.", f"Your name is {name}.", f"You are {name}, a friendly helper.",
        f"You are {name}."),
        "pirate": ("You are a pirate.", "Talk like a pirate.", "You are a pirate on a ship."),
        "polite": ("Be very polite.", "You are a polite helper.", "Always be polite."),
        "animal": (f"You are a {beast}.", f"Talk like a {beast}.", f"You are a friendly {beast}."),
        "kind": ("You are a kind helper.", "You are a friendly model that tells stories.",
        "You are talking to a child.", "Use simple words."),
        "loud": ("Write in capital letters.", "Use only capital letters.", "Answer in capital letters."),
    }  # fmt: skip
    prompt = (
        pick(chat.draw, options[kind])
        .replace("a elephant", "an elephant")
        .replace("a owl", "an owl")
        .replace("a ant", "an ant")
    )
    prompt = prompt.replace("a octopus", "an octopus")
    chat.answer = kind
    chat.rows.append({"role": "system", "content": prompt})
    if kind == "named" and chat.draw() < 0.7:
        chat.say("yourname", "named")


def chat(seed: int, number: int) -> Row:
    """Chat `number` of `seed`: one to six turns."""
    talk = Chat(stream(seed, "chat", number))
    draw = talk.draw
    if draw() < 0.15:
        _system(talk)
    turns = 1 + int(draw() * draw() * 7)
    if draw() < 0.3 and talk.answer != "loud":
        _hello(talk)
    if draw() < 0.25:
        _name(talk)
    while len(talk.rows) < 2 * turns + 1 or len(talk.rows) < 2:
        TOPICS[int(draw() * len(TOPICS))](talk)
    if len(talk.rows) > 3 and draw() < 0.25:
        talk.say("thanks", "thanks", "Welcome!")
    if len(talk.rows) > 3 and draw() < 0.2:
        named = any(talk.scope["name"] in row["content"] for row in talk.rows)
        talk.say("bye", "byename" if named and draw() < 0.7 else "bye", "Bye!")
    system = talk.rows[0]["role"] == "system"
    return {"messages": talk.rows[: 12 + system]}
