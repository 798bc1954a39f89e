"""Stories: a cast is drawn, and a plot is told step by step."""

from __future__ import annotations

import re
from functools import cache

from minigen.weights.synthetic.casting import Setting, draw_setting
from minigen.weights.synthetic.grammar import Draw, Scope, stream, with_article, write
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
    setting = draw_setting(draw, plot, about)
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
