"""The plots, as steps with ways to tell them. Their format, in `plots/*.txt`:

== lost_toy              a plot and its name
cast child friend        the hero (child, animal, any, sea; duo: two children); sage: the stranger is a wise animal;
                         newf: hero and friend have not met before
about                    a story of this plot can be asked for by the first of its lets
let toy=toy place=place_*  words drawn for the story, with adjective (`toyx`); * is child or animal as the hero is
trait lonely             the hero is so; many may be given
like swim, dance         what the hero likes to do
(blank line)             the next step; `?` before its first way: the step may be left out; `---`: a new paragraph
- text                   a way to tell the step; indented lines continue it
- (sad) text             ... only where the tag is set; (!sad) where not; (+sad) sets it
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

from minigen.weights.synthetic import people
from minigen.weights.synthetic.grammar import Grammar, Parts, blocks
from minigen.weights.synthetic.lexicon import classes

_TAGS = re.compile(r"\(([+!a-z_,]+)\) ")


@dataclass
class Way:
    parts: Parts
    needs: frozenset[str]
    lacks: frozenset[str]
    sets: frozenset[str]


@dataclass
class Step:
    ways: list[Way] = field(default_factory=list)
    optional: bool = False
    paragraph: bool = False
    plain: bool = True  # no way has a condition


@dataclass
class Plot:
    name: str
    hero: str
    cast: tuple[str, ...]
    lets: tuple[tuple[str, str], ...]
    traits: tuple[str, ...]
    likes: tuple[str, ...]
    steps: list[Step]
    about: bool  # of the first of the lets


@cache
def grammar() -> Grammar:
    folder = files("minigen.weights.synthetic")
    rules: dict[str, list[str]] = {}
    for name in ("openings.txt", "phrases.txt"):
        rules.update(blocks(folder.joinpath(name).read_text(encoding="utf-8")))
    return Grammar(classes(), rules)


def _step(text: str, paragraph: bool) -> Step:
    step = Step(optional=text.startswith("?"), paragraph=paragraph)
    for way in re.split(r"^- ", text.lstrip("? \n"), flags=re.MULTILINE)[1:]:
        template = " ".join(way.split())
        match = _TAGS.match(template)
        tags = match.group(1).split(",") if match else []
        parts = grammar().compile(template[match.end() :] if match else template)
        step.ways.append(
            Way(
                parts,
                frozenset(tag for tag in tags if tag[0] not in "+!"),
                frozenset(tag[1:] for tag in tags if tag[0] == "!"),
                frozenset(tag[1:] for tag in tags if tag[0] == "+"),
            )
        )
        step.plain = step.plain and not tags
    assert step.ways, f"a step without a way: {text!r}"
    return step


def _parse(text: str) -> Iterator[Plot]:
    for chunk in re.split(r"^== ", text, flags=re.MULTILINE)[1:]:
        head, *bodies = re.split(r"\n\s*\n", chunk.strip())
        name, *lines = head.splitlines()
        keys = dict(line.partition(" ")[::2] for line in lines)
        hero, *cast = keys["cast"].split()
        lets = tuple((a, b) for each in keys.get("let", "").split() for a, _, b in [each.partition("=")])
        steps, paragraph = [], False
        for body in bodies:
            if body.strip() == "---":
                paragraph = True
                continue
            steps.append(_step(body, paragraph))
            paragraph = False
        likes = tuple(each.strip() for each in keys.get("like", "").split(",") if each.strip())
        yield Plot(
            name.strip(), hero, tuple(cast), lets, tuple(keys.get("trait", "").split()), likes, steps, "about" in keys
        )


@cache
def plots() -> tuple[Plot, ...]:
    folder = files("minigen.weights.synthetic").joinpath("plots")
    found = [
        p for each in sorted(folder.iterdir(), key=lambda f: f.name) for p in _parse(each.read_text(encoding="utf-8"))
    ]
    assert len({plot.name for plot in found}) == len(found), "two plots with one name"
    return tuple(found)


@cache
def subjects() -> dict[str, tuple[Plot, ...]]:
    """What a story can be asked for ("dog", "kite") -> the plots that can have it."""
    found: dict[str, list[Plot]] = {}
    for plot in plots():
        if plot.hero in ("animal", "any", "sea"):
            for species in people.SEA if plot.hero == "sea" else sorted(set(people.SPECIES)):
                found.setdefault(species, []).append(plot)
        for _, name in plot.lets[:1] if plot.about else ():
            for noun in classes()[name]:
                found.setdefault(noun, []).append(plot)
    return {name: tuple(listed) for name, listed in found.items()}
