"""Who and what a story is about: the cast and the words of a plot are drawn."""

from __future__ import annotations

from dataclasses import dataclass

from minigen.weights.synthetic import people
from minigen.weights.synthetic.grammar import Draw, Scope, pick, with_article
from minigen.weights.synthetic.lexicon import adjectives, animals, classes, ing, past, plural
from minigen.weights.synthetic.plotfile import Plot


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


def draw_setting(draw: Draw, plot: Plot, about: str) -> Setting:
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
