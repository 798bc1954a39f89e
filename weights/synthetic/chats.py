"""Chats in which a small model is greeted, asked, told things that it remembers, and bid goodbye.

A chat is a walk over topics; each adds one or more turns. What the user tells (a name, a pet, a
color, a food) is kept, and asked for later. A system prompt, if there is one, is obeyed in every
answer.
"""

from __future__ import annotations

from collections.abc import Callable

from minigen.weights.synthetic.answers import question
from minigen.weights.synthetic.conversation import SyntheticChat, chat_words
from minigen.weights.synthetic.grammar import pick, stream, with_article
from minigen.weights.synthetic.lexicon import animals, read_blocks
from minigen.weights.synthetic.plotfile import subjects
from minigen.weights.synthetic.stories import short_story

Row = dict[str, list[dict[str, str]]]

_CONVERSATION_RULES = (
    "howareyou",
    "yourname",
    "glad",
    "like",
    "like",
    "cando",
    "bored",
    "hard",
    "hard",
    "old",
    "joke",
)
# How the answers are to be, by the system prompt.
_STYLES = ("word", "word", "named", "named", "pirate", "polite", "animal", "kind", "loud")


# -- Topics --
def _hello(chat: SyntheticChat) -> None:
    chat.say("hello", "hello", "Hello!")
    greeting = chat.messages[-1]["content"]
    asks_how = "How are you" in greeting or "And you?" in greeting
    if "What is your name" in greeting and chat.draw() < 0.7:
        _name(chat)
    elif asks_how and chat.draw() < 0.7:
        if chat.draw() < 0.65:
            chat.say("fine", "fine", "Good!")
        else:
            _sad(chat)


def _sad(chat: SyntheticChat) -> None:
    chat.say("sad", "sad", "Sorry.")
    if chat.draw() < 0.6:
        chat.say("sadwhy", "sadwhy", "Sorry.")


def _name(chat: SyntheticChat) -> None:
    if "name" not in chat.told:
        chat.told.add("name")
        chat.say("iam_name", "iam_name", "Hello!")


def _fact(chat: SyntheticChat) -> None:
    """The user tells something that will be asked for."""
    kind = pick(chat.draw, ("fav", "food", "pet"))
    if kind not in chat.told:
        chat.told.add(kind)
        chat.say(kind, kind, "Nice!")


def _recall(chat: SyntheticChat) -> None:
    """A question about what the user told, or about the name that the user did not tell."""
    told = sorted(chat.told)
    if told:
        kind = pick(chat.draw, told)
        chat.told.discard(kind)
        rule, key = kind + "q", kind
        if kind == "name":
            rule = "myname"
        if kind == "pet":
            key = "petname"
        chat.say(rule, rule, chat.scope[key].capitalize() + ".")
    elif not chat.mentions(chat.scope["name"]):
        chat.say("myname", "noname", "Unknown.")


def _ask(chat: SyntheticChat) -> None:
    asked, full, short = question(chat.draw)
    if chat.style in ("plain", "polite") and chat.draw() < 0.12:
        full = f"{short}."
    chat.turn(asked, full, short + ".")
    if chat.style == "plain" and chat.draw() < 0.08:
        chat.scope["answer"] = full
        chat.turn("Are you sure?", chat.text("b_sure"), "Yes.")


def _story(chat: SyntheticChat) -> None:
    about = pick(chat.draw, list(subjects()))
    chat.scope["x"] = about
    if chat.style in ("word", "loud"):
        return
    if chat.draw() < 0.2:
        chat.say("storyask", "storyask")
        chat.scope["story"] = short_story(chat.draw, about)
        chat.turn(chat.text("u_about"), chat.scope["story"])
    else:
        chat.scope["story"] = short_story(chat.draw, about)
        chat.say("story", "story")
    if chat.draw() < 0.35:
        chat.say("liked", "liked")


def _conversation(chat: SyntheticChat) -> None:
    rule = pick(chat.draw, _CONVERSATION_RULES)
    if chat.style == "word":
        return
    chat.scope["x"] = pick(chat.draw, chat_words("likes"))
    reply = "named" if rule == "yourname" and chat.style == "named" else rule
    chat.say(rule, reply)


TOPICS: tuple[Callable[[SyntheticChat], None], ...] = (
    *(_ask,) * 4,
    _story,
    _fact,
    _recall,
    _recall,
    _name,
    _conversation,
    _conversation,
    _sad,
)


def _system(chat: SyntheticChat) -> None:
    """A system prompt and the style of answers that it asks for."""
    style = pick(chat.draw, _STYLES)
    beast = pick(chat.draw, tuple(animals()))
    chat.scope["beast"] = beast
    prompt = pick(chat.draw, read_blocks("chat_words.txt")[f"system {style}"])
    name = chat.scope["bot"]
    chat.set_system(prompt.format(name=name, beast=with_article(beast), plain_beast=beast), style)
    if style == "named" and chat.draw() < 0.7:
        chat.say("yourname", "named")


def chat(seed: int, number: int) -> Row:
    """Chat `number` of `seed`: one to six turns."""
    conversation = SyntheticChat(stream(seed, "chat", number))
    draw = conversation.draw
    if draw() < 0.15:
        _system(conversation)
    turns = 1 + int(draw() * draw() * 7)
    if draw() < 0.3 and conversation.style != "loud":
        _hello(conversation)
    if draw() < 0.25:
        _name(conversation)
    while len(conversation.messages) < 2 * turns + 1:
        topic = TOPICS[int(draw() * len(TOPICS))]
        topic(conversation)
    if len(conversation.messages) > 3 and draw() < 0.25:
        conversation.say("thanks", "thanks", "Welcome!")
    if len(conversation.messages) > 3 and draw() < 0.2:
        by_name = conversation.mentions(conversation.scope["name"]) and draw() < 0.7
        conversation.say("bye", "byename" if by_name else "bye", "Bye!")
    most = 12
    if conversation.messages[0]["role"] == "system":
        most += 1
    return {"messages": conversation.messages[:most]}
