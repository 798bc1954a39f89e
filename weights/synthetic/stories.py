"""Stories: a cast is drawn, and a plot is told step by step."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from minigen.weights.synthetic import people
from minigen.weights.synthetic.grammar import Draw, Scope, pick, stream, with_article, write
from minigen.weights.synthetic.lexicon import adjectives, animals, classes, ing, past, plural
from minigen.weights.synthetic.plotfile import Plot, Way, grammar, plots, subjects
from minigen.weights.synthetic.wording import contract, join_sentences

_ONE_DAY = re.compile(
    r"(?:Then one|One)[a-z ]* (?:day|morning|afternoon|night)(?:, after [a-z ]+)?, "
)
_SHORT = 150  # the most words of a story in a chat


@cache
def _plots_by_weight() -> tuple[Plot, ...]:
    """Every plot as often as it counts in a draw: more if it has open words or two friends."""
    weighted: list[Plot] = []
    for plot in plots():
        if plot.name.startswith(("open", "present_open")):
            weighted += [plot] * 4
        elif plot.hero == "duo":
            weighted += [plot] * 3
        else:
            weighted.append(plot)
    return tuple(weighted)


class Cast(dict[str, str]):
    """A scope in which the friend and the stranger are introduced when they first appear."""

    introductions: dict[str, str]

    def __missing__(self, key: str) -> str:
        role = key[0]
        assert key in ("f", "w", "wx"), f"no word {key!r} in this plot"
        introduction = self.introductions[role]
        self[role] = self[role + "known"]
        if role == "w":
            self["wx"] = introduction
        return introduction


@dataclass
class Setting:
    """What a story is told with."""

    scope: Cast
    tags: set[str]
    opening: str  # the rule that opens the story


def _introduce(draw: Draw, scope: Cast, hero: str, new_friend: bool) -> None:
    """Choose how the friend and the stranger are introduced, and take them out of the scope."""
    friend = scope["fknown"]
    closeness = pick(draw, ("friend", "friend", "best friend", "good friend"))
    if friend.startswith("the ") or new_friend or (hero != "duo" and draw() < 0.25):
        introduction = with_article(scope["fintro"])
    else:
        introduction = f"{scope['his']} {closeness} {friend}"
        if hero == "animal" and draw() < 0.5:
            introduction += f" the {scope['fk']}"
    if hero == "duo":
        introduction = friend
    scope.introductions = {"f": introduction, "w": scope["wx"]}
    for key in ("f", "w", "wx"):
        scope.pop(key, None)


def _let(draw: Draw, scope: Scope, name: str, source: str, word: str) -> None:
    """Bind `name` to a word of the class `source`, and the forms of it that templates use.

    Of a place, `at` + name has its preposition; of a skill, name + `ing` and name + `ed` are its
    forms; of other words, name + `x` has an adjective, name + `s` is the plural.
    """
    scope[name] = word
    if source.startswith(("place", "hidden")):
        _, _, noun = word.partition(" ")
        scope[name] = noun
        scope["at" + name] = word
        return
    if source == "skill":
        verb, space, rest = word.partition(" ")
        scope[name + "ing"] = ing(verb) + space + rest
        scope[name + "ed"] = past(verb) + space + rest
        return
    suitable = adjectives().get(source)
    adjective = ""
    if suitable and draw() < 0.75:
        adjective = pick(draw, suitable)
    if adjective and adjective.split()[0] in word.split():
        adjective = ""
    scope[name + "x"] = f"{adjective} {word}".lstrip()
    scope[name + "s"] = plural(word)
    scope[name + "adj"] = adjective or "nice"


def _has_animal_hero(draw: Draw, plot: Plot, about: str) -> bool:
    if plot.hero == "any":
        if about:
            return about in animals()
        return draw() < 0.5
    return plot.hero in ("animal", "sea")


def _cast_animals(draw: Draw, scope: Cast, plot: Plot, about: str, taken: set[str]) -> str:
    """Cast hero and friend as animals; returns the rule of the opening."""
    sea = plot.hero == "sea"
    species = about if about in animals() else ""
    people.animal(draw, scope, "h", taken, species, sea)
    people.animal(draw, scope, "f", taken, "", sea)
    return "open_pet"


def _cast_children(draw: Draw, scope: Cast, plot: Plot, taken: set[str]) -> str:
    """Cast hero and friend as children; returns the rule of the opening."""
    people.child(draw, scope, "h", taken)
    opening = "open_child"
    if plot.hero == "duo":
        opening = "open_duo"
    elif draw() < 0.07:
        scope["h"] = f"the {scope['hk']}"
        opening = "open_girl_boy"
    people.child(draw, scope, "f", taken)
    scope.update(hmoved="ran", hmove="run", hcried="shouted")
    scope.update(fmoved="ran", fmove="run", fcried="shouted")
    return opening


def _name_roles(scope: Cast) -> None:
    """Set what each of hero, friend and stranger is known as, and what others call them."""
    for role in "hfw":
        name = scope[role]
        scope[role + "known"] = name
        if name.startswith("the ") and role != "w":
            scope[role + "c"] = f"little {scope[role + 'k']}"
        else:
            scope[role + "c"] = name.removeprefix("the ")


def _class_of(word: str, names: list[str]) -> str:
    for name in names:
        if word in classes()[name]:
            return name
    raise AssertionError(f"{word!r} is of none of the classes {names}")


def _draw_lets(draw: Draw, scope: Cast, plot: Plot, about: str, hero: str) -> None:
    """Draw the plot's words; the first of them is `about`, if it is a thing."""
    for position, (name, source) in enumerate(plot.lets):
        options = source.replace("*", hero).split("|")
        if position == 0 and about and about not in animals():
            source = _class_of(about, options)
            word = about
        else:
            source = pick(draw, options)
            word = pick(draw, classes()[source])
        _let(draw, scope, name, source, word)


def _setting(draw: Draw, plot: Plot, about: str) -> Setting:
    """Draw the cast and the words of a story."""
    scope = Cast()
    taken: set[str] = set()
    animal_hero = _has_animal_hero(draw, plot, about)
    if animal_hero:
        hero = "animal"
        opening = _cast_animals(draw, scope, plot, about, taken)
    else:
        hero = "child"
        opening = _cast_children(draw, scope, plot, taken)
    people.parent(draw, scope, animal_hero)
    people.stranger(draw, scope, taken, sage=animal_hero or "sage" in plot.cast)
    _name_roles(scope)
    tags = {hero, scope["hk"]}
    tags.add("unnamed" if scope["h"].startswith("the ") else "named")
    tags.add("funnamed" if scope["f"].startswith("the ") else "fnamed")
    if animal_hero:
        introduced_as, pastimes = "animal", classes()["animalfun"]
    else:
        introduced_as, pastimes = plot.hero, classes()["fun"]
    _introduce(draw, scope, introduced_as, "newf" in plot.cast)
    scope["trait"] = pick(draw, plot.traits or classes()["good"])
    scope["like"] = pick(draw, plot.likes or pastimes)
    _draw_lets(draw, scope, plot, about, hero)
    return Setting(scope, tags, opening)


def _written(way: Way, scope: Scope, draw: Draw) -> str:
    pieces: list[str] = []
    write(way.parts, scope, draw, pieces)
    return "".join(pieces)


def _add_detail(draw: Draw, plot: Plot, setting: Setting, out: list[str]) -> None:
    """Sometimes add a sentence on the hero to the opening."""
    if setting.opening == "open_duo" or plot.hero == "sea" or draw() >= 0.4:
        return
    detail = "detail_animal" if "animal" in setting.tags else "detail_child"
    out.append(" ")
    write([grammar().rule(detail)], setting.scope, draw, out)


def tell(draw: Draw, plot: Plot, about: str = "", short: bool = False) -> str:
    """One telling of `plot`; about an animal or thing of `subjects()`, if one is asked for."""
    setting = _setting(draw, plot, about)
    scope, tags = setting.scope, setting.tags
    out: list[str] = []
    write([grammar().rule(setting.opening)], scope, draw, out)
    if not short:
        _add_detail(draw, plot, setting, out)
    for number, step in enumerate(plot.steps):
        if step.optional and (short or draw() < 0.4):
            continue
        ways = step.ways_for(tags)
        if not ways:
            continue
        way = ways[int(draw() * len(ways))]
        tags |= way.sets
        may_open = number == 0 and "unnamed" not in tags and plot.hero != "duo"
        if may_open and draw() < 0.4:
            text = _written(way, scope, draw)
            one_day = _ONE_DAY.match(text)
            if one_day and text.startswith(scope["h"], one_day.end()):
                # The step replaces the opening: "One day, a little dog named Rex went ..."
                rest = text[one_day.end() + len(scope["h"]) :]
                out = [one_day.group(), with_article(scope["hintro"]), rest]
            else:
                out += [" ", text]
            continue
        new_line = 0.85 if step.paragraph else 0.2
        out.append("\n" if draw() < new_line else " ")
        write(way.parts, scope, draw, out)
    may_have_coda = not short and plot.hero != "duo"
    if may_have_coda and draw() < 0.3 and not "".join(out[-6:]).endswith("The end."):
        out.append(" ")
        write([grammar().rule("coda")], scope, draw, out)
    text = "".join(out).replace("  ", " ").replace(" \n", "\n").strip()
    if draw() < 0.4:
        text = contract(text)
    if plot.name.startswith("present"):
        return text
    return join_sentences(draw, text)


def story(seed: int, number: int) -> str:
    """Story `number` of `seed`."""
    draw = stream(seed, "story", number).random
    weighted = _plots_by_weight()
    return tell(draw, weighted[int(draw() * len(weighted))])


def short_story(draw: Draw, about: str) -> str:
    """A story of at most 150 words about `about`, one of `subjects()`; else the shortest drawn."""
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
