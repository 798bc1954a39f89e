"""Stories: a cast is drawn, and a plot is told step by step."""

from __future__ import annotations

import re
from functools import cache

from minigen.weights.synthetic import people
from minigen.weights.synthetic.grammar import Draw, Scope, pick, stream, with_article, write
from minigen.weights.synthetic.lexicon import adjectives, animals, classes, ing, past, plural
from minigen.weights.synthetic.plotfile import Plot, grammar, plots, subjects

_BEGINS = re.compile(r"(?:Then one|One)[a-z ]* (?:day|morning|afternoon|night)(?:, after [a-z ]+)?, ")
_SHORT = 150  # words, at most, of a story in a chat


@cache
def _drawn() -> tuple[Plot, ...]:
    """The plots as often as they are drawn: those with open words, and those of two friends, more often."""
    often = {
        plot.name: (4 if plot.name.startswith(("open", "present_open")) else 3 if plot.hero == "duo" else 1)
        for plot in plots()
    }
    return tuple(plot for plot in plots() for _ in range(often[plot.name]))


class Cast(dict[str, str]):
    """A scope in which the friend and the stranger are introduced where they first appear, and known from then on."""

    first: dict[str, str]

    def __missing__(self, key: str) -> str:
        role = key[0]
        assert key in ("f", "w", "wx"), f"no word {key!r} in this plot"
        text = self.first[role]
        self[role] = self[role + "known"]
        if role == "w":
            self["wx"] = text
        return text


def _introduce(draw: Draw, scope: Cast, hero: str, strange: bool) -> None:
    """How the friend, and the stranger, are spoken of where they first appear."""
    friend, who = scope["fknown"], scope["f" + "intro"]
    known = f"{scope['his']} [friend]".replace(
        "[friend]", pick(draw, ("friend", "friend", "best friend", "good friend"))
    )
    if friend.startswith("the ") or strange or (hero != "duo" and draw() < 0.25):
        first = with_article(who)
    else:
        first = f"{known} {friend}" + (f" the {scope['fk']}" if hero == "animal" and draw() < 0.5 else "")
    scope.first = {"f": friend if hero == "duo" else first, "w": scope["wx"]}
    for key in ("f", "w", "wx"):
        scope.pop(key, None)


def _let(draw: Draw, scope: Scope, name: str, source: str, word: str = "") -> None:
    """A word of the class (or of a|b) for `name`; with an adjective as name + x, and its plural as name + s."""
    word = word or pick(draw, classes()[source])
    scope[name] = word
    if source.startswith(("place", "hidden")):
        _, _, noun = word.partition(" ")
        scope[name], scope["at" + name] = noun, word
        return
    if source == "skill":
        verb, space, rest = word.partition(" ")
        scope[name + "ing"], scope[name + "ed"] = ing(verb) + space + rest, past(verb) + space + rest
        return
    fitting = adjectives().get(source)
    adjective = pick(draw, fitting) if fitting and draw() < 0.75 else ""
    if adjective and adjective.split()[0] in word.split():
        adjective = ""
    scope[name + "x"] = f"{adjective} {word}" if adjective else word
    scope[name + "s"] = plural(word)
    scope[name + "adj"] = adjective or "nice"


def _cast(draw: Draw, plot: Plot, about: str) -> tuple[Cast, set[str], str]:
    """The scope with all roles and words, the tags to start with, and the rule of the opening."""
    scope = Cast()
    taken: set[str] = set()
    beast = plot.hero in ("animal", "sea") or (
        plot.hero == "any" and (about in animals() or (not about and draw() < 0.5))
    )
    if beast:
        people.animal(draw, scope, "h", taken, about if about in animals() else "", plot.hero == "sea")
        opening = "open_pet"
    else:
        people.child(draw, scope, "h", taken)
        opening = "open_duo" if plot.hero == "duo" else "open_child"
        if opening == "open_child" and draw() < 0.07:
            scope["h"], opening = f"the {scope['hk']}", "open_girl_boy"
        scope.update(hmoved="ran", hmove="run", hcried="shouted")
    if beast:
        people.animal(draw, scope, "f", taken, "", plot.hero == "sea")
    else:
        people.child(draw, scope, "f", taken)
        scope.update(fmoved="ran", fmove="run", fcried="shouted")
    people.parent(draw, scope, beast)
    people.stranger(draw, scope, taken, sage=beast or "sage" in plot.cast)
    for role in "hfw":
        name = scope[role + "known"] = scope[role]
        scope[role + "c"] = (
            f"little {scope[role + 'k']}" if name.startswith("the ") and role != "w" else name.removeprefix("the ")
        )
    tags = {"animal" if beast else "child", scope["hk"], "unnamed" if scope["h"].startswith("the ") else "named"}
    tags.add("funnamed" if scope["f"].startswith("the ") else "fnamed")
    _introduce(draw, scope, "animal" if beast else plot.hero, "newf" in plot.cast)
    scope["trait"] = pick(draw, plot.traits or classes()["good"])
    scope["like"] = pick(draw, plot.likes or classes()["animalfun" if beast else "fun"])
    for i, (name, source) in enumerate(plot.lets):
        options = source.replace("*", "animal" if beast else "child").split("|")
        asked = about if i == 0 and about and about not in animals() else ""
        _let(
            draw,
            scope,
            name,
            next((o for o in options if asked in classes()[o]), "") if asked else pick(draw, options),
            asked,
        )
    return scope, tags, opening


def tell(draw: Draw, plot: Plot, about: str = "", short: bool = False) -> str:
    """One telling of `plot`, about an animal or thing of `subjects()` where one is asked for."""
    scope, tags, opening = _cast(draw, plot, about)
    out: list[str] = []
    write([grammar().rule(opening)], scope, draw, out)
    detail = (
        "" if opening == "open_duo" else "detail_animal" if "animal" in tags and plot.hero != "sea" else "detail_child"
    )
    if detail and plot.hero != "sea" and not short and draw() < 0.4:
        out.append(" ")
        write([grammar().rule(detail)], scope, draw, out)
    for number, step in enumerate(plot.steps):
        if step.optional and (short or draw() < 0.4):
            continue
        ways = step.ways
        if not step.plain:
            ways = [w for w in ways if w.needs <= tags and not (w.lacks & tags)]
            if not ways:
                continue
        way = ways[int(draw() * len(ways))]
        tags |= way.sets
        if number == 0 and "unnamed" not in tags and plot.hero != "duo" and draw() < 0.4:
            first: list[str] = []
            write(way.parts, scope, draw, first)
            text = "".join(first)
            begins = _BEGINS.match(text)
            if begins and text.startswith(scope["h"], begins.end()):
                out = [begins.group(), with_article(scope["hintro"]), text[begins.end() + len(scope["h"]) :]]
            else:
                out += [" ", text]
            continue
        out.append("\n" if draw() < (0.85 if step.paragraph else 0.2) else " ")
        write(way.parts, scope, draw, out)
    if not short and plot.hero != "duo" and draw() < 0.3 and not "".join(out[-6:]).endswith("The end."):
        out.append(" ")
        write([grammar().rule("coda")], scope, draw, out)
    text = "".join(out).replace("  ", " ").replace(" \n", "\n").strip()
    if draw() < 0.4:
        text = _LONG.sub(lambda match: _SHORTER[match.group()], text)
    return text if plot.name.startswith("present") else join(draw, text)


_SHORTER = {
    "did not": "didn't", "could not": "couldn't", "do not": "don't", "was not": "wasn't", "will not": "won't",
    "cannot": "can't",
    "I am": "I'm", "It is": "It's", "You are": "You're", "That is": "That's", "Do not": "Don't", "I will": "I'll",
}  # fmt: skip
_LONG = re.compile("|".join(rf"\b{long}\b(?=[ ])" for long in _SHORTER))


_SHORT_PAIR = re.compile(
    r"((?:(?<=[.!] )|(?<=\n)|^)([A-Z][a-z]+) [a-z][a-z ,']{6,60})\. (He|She|They|It|But)( [a-z][^.!?\n\"]{4,60}[.!])"
)


def join(draw: Draw, text: str) -> str:
    """Some pairs of short sentences made into one, as in "He ran home, and he was glad."."""

    def joined(match: re.Match[str]) -> str:
        first, subject, word, rest = match.groups()
        if draw() < 0.4 or " and" in first or " and" in rest or subject in ("But", "Then", "When", "If", "Once"):
            return match.group()
        if word == "But":
            return f"{first}, but{rest}"
        if subject == word and word != "It":
            return f"{first} and{rest}"
        return f"{first}{', and' if draw() < 0.6 else ' and'} {word.lower()}{rest}"

    return _SHORT_PAIR.sub(joined, text)


def story(seed: int, number: int) -> str:
    """Story `number` of `seed`."""
    draw = stream(seed, "story", number).random
    return tell(draw, _drawn()[int(draw() * len(_drawn()))])


def short_story(draw: Draw, about: str) -> str:
    """A story of at most 150 words about `about`, which must be one of `subjects()`; the shortest of some tellings."""
    options = subjects()[about]
    best = ""
    for _ in range(12):
        text = tell(draw, options[int(draw() * len(options))], about, short=True)
        if text.count(about) > 1 and (not best or len(text) < len(best)):
            best = text
            if 60 < len(text.split()) <= _SHORT:
                break
    assert best, f"no story is about {about}"
    return best


__all__ = ["Plot", "plots", "short_story", "story", "subjects", "tell"]
