"""The plots, as steps with several ways to tell each. Their format, in `plots/*.txt`:

== lost_toy              a plot and its name
cast child friend        the hero (child, animal, any, sea; duo: two children); sage: the stranger
                         is a wise animal; newf: hero and friend have not met before
about                    a story of this plot can be asked for by the first of its lets
let toy=toy place=place_*  words drawn for the story, with adjective (`toyx`); * is child or
                         animal as the hero is
trait lonely             what the hero is like; several may be given
like swim, dance         what the hero likes to do
(blank line)             the next step; `?` before its first way: the step may be left out;
                         `---`: a new paragraph
- text                   a way to tell the step; indented lines continue it
- (sad) text             ... only where the tag is set; (!sad) where not; (+sad) sets it
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from minigen.weights.synthetic import people
from minigen.weights.synthetic.grammar import Grammar, Parts
from minigen.weights.synthetic.lexicon import classes, read_blocks, split_items

_TAGS = re.compile(r"\(([+!a-z_,]+)\) ")


@dataclass(frozen=True)
class Way:
    """One way to tell a step, and the tags that it needs set, needs not set, and sets."""

    parts: Parts
    needs: frozenset[str]
    lacks: frozenset[str]
    sets: frozenset[str]


@dataclass(frozen=True)
class Step:
    ways: tuple[Way, ...]
    optional: bool
    paragraph: bool  # it begins one

    def ways_for(self, tags: set[str]) -> list[Way]:
        """The ways that the tags allow."""
        return [way for way in self.ways if way.needs <= tags and not way.lacks & tags]


@dataclass(frozen=True)
class Plot:
    name: str
    hero: str
    cast: tuple[str, ...]
    lets: tuple[tuple[str, str], ...]
    traits: tuple[str, ...]
    likes: tuple[str, ...]
    steps: tuple[Step, ...]
    about: bool  # a story can be about the first of the lets


@cache
def grammar() -> Grammar:
    """The rules that all plots share."""
    return Grammar(classes(), {**read_blocks("openings.txt"), **read_blocks("phrases.txt")})


def _way(template: str) -> Way:
    match = _TAGS.match(template)
    tags: dict[str, set[str]] = {"": set(), "!": set(), "+": set()}
    if match is not None:
        template = template[match.end() :]
        for tag in match.group(1).split(","):
            name = tag.lstrip("!+")
            mark = tag.removesuffix(name)
            tags[mark].add(name)
    return Way(
        parts=grammar().compile(template),
        needs=frozenset(tags[""]),
        lacks=frozenset(tags["!"]),
        sets=frozenset(tags["+"]),
    )


def _step(text: str, paragraph: bool) -> Step:
    templates = re.split(r"^- ", text.lstrip("? \n"), flags=re.MULTILINE)[1:]
    assert templates, f"a step without a way: {text!r}"
    ways = tuple(_way(" ".join(template.split())) for template in templates)
    return Step(ways, optional=text.startswith("?"), paragraph=paragraph)


def _plots_of(text: str) -> Iterator[Plot]:
    """The plots of one file."""
    for chunk in re.split(r"^== ", text, flags=re.MULTILINE)[1:]:
        head, *bodies = re.split(r"\n\s*\n", chunk.strip())
        name, *lines = head.splitlines()
        keys: dict[str, str] = {}
        for line in lines:
            key, _, value = line.partition(" ")
            keys[key] = value
        hero, *cast = keys["cast"].split()
        lets = []
        for let in keys.get("let", "").split():
            word, _, source = let.partition("=")
            lets.append((word, source))
        yield Plot(
            name=name.strip(),
            hero=hero,
            cast=tuple(cast),
            lets=tuple(lets),
            traits=tuple(keys.get("trait", "").split()),
            likes=tuple(split_items([keys.get("like", "")])),
            steps=tuple(_steps_of(bodies)),
            about="about" in keys,
        )


def _steps_of(bodies: list[str]) -> Iterator[Step]:
    paragraph = False
    for body in bodies:
        if body.strip() == "---":
            paragraph = True
        else:
            yield _step(body, paragraph)
            paragraph = False


@cache
def plots() -> tuple[Plot, ...]:
    """All plots, in the order of their files' names."""
    folder = files("minigen.weights.synthetic").joinpath("plots")
    all_plots: list[Plot] = []
    for file in sorted(folder.iterdir(), key=str):
        all_plots.extend(_plots_of(file.read_text(encoding="utf-8")))
    names = {plot.name for plot in all_plots}
    assert len(names) == len(all_plots), "two plots with one name"
    return tuple(all_plots)


@cache
def subjects() -> dict[str, tuple[Plot, ...]]:
    """What a story can be asked for ("dog", "kite") -> the plots that can be about it."""
    plots_about: dict[str, list[Plot]] = {}
    for plot in plots():
        for subject in _subjects_of(plot):
            plots_about.setdefault(subject, []).append(plot)
    return {subject: tuple(suitable) for subject, suitable in plots_about.items()}


def _subjects_of(plot: Plot) -> Iterator[str]:
    if plot.hero == "sea":
        yield from people.SEA_SPECIES
    elif plot.hero in ("animal", "any"):
        yield from sorted(set(people.SPECIES))
    if plot.about and plot.lets:
        _, source = plot.lets[0]
        yield from classes()[source]
