"""Templates: text with named fields in braces; `{{` and `}}` stand for literal braces."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from string import Formatter

_NAME = re.compile(r"[^\W\d][\w-]*")


@lru_cache(maxsize=64)
def parse(template: str) -> tuple[tuple[str, str | None], ...]:
    """Splits a template into (literal text, name of the field after it or None).

    Raises ValueError, worded as the end of a message about the template, for anything but plain
    names in braces: the attributes, indices, conversions and formats of str.format would let a
    file reach into objects.
    """
    try:
        pieces = list(Formatter().parse(template))
    except ValueError:
        raise ValueError("has a single brace; write {{ or }} for a literal one") from None
    for _, name, spec, conversion in pieces:
        if name is None:
            continue
        if spec or conversion:
            written = name
            if conversion:
                written += f"!{conversion}"
            if spec:
                written += f":{spec}"
            raise ValueError(
                f"has {{{written}}}; braces may hold only a plain name, without ! or :"
            )
        if not name:
            raise ValueError("has {}; name the field, as in {input}")
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"has {{{name}}}; a field's name must begin with a letter and consist of "
                "letters, digits, _ and -"
            )
    if all(name is None for _, name, _, _ in pieces):
        raise ValueError("has no field; put one in braces, as in {input}")
    return tuple((literal, name) for literal, name, _, _ in pieces)


def field_names(template: str) -> tuple[str, ...]:
    """The fields of a template, each once, in order."""
    names = dict.fromkeys(name for _, name in parse(template))
    return tuple(name for name in names if name is not None)


def fill(template: str, fields: Mapping[str, str]) -> str:
    """The template with its fields filled in; braces in the values are kept as they are."""
    parts: list[str] = []
    for literal, name in parse(template):
        parts.append(literal)
        if name is not None:
            parts.append(fields[name])
    return "".join(parts)
