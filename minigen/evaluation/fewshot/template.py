"""Templates: text with named fields in braces, `{{` and `}}` for the braces themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from string import Formatter

_NAME = re.compile(r"[^\W\d][\w-]*")


@lru_cache(maxsize=64)
def parse(template: str) -> tuple[tuple[str, str | None], ...]:
    """(literal text, name of the field after it or None) of each piece.

    Raises ValueError, in the words of a message about the template, for anything but plain names in braces:
    str.format's attributes, indices, conversions and formats would let a file reach into objects.
    """
    try:
        pieces = list(Formatter().parse(template))
    except ValueError:
        raise ValueError("has a single brace; write {{ or }} for a literal one") from None
    for _, name, spec, conversion in pieces:
        if name is None:
            continue
        if spec or conversion:
            shown = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            raise ValueError(
                f"has {{{shown}}}; only a plain name may stand in braces, without ! or :"
            )
        if not name:
            raise ValueError("has {}; name the field, as in {input}")
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"has {{{name}}}; a field's name is letters, digits, _ and -, and begins with a letter"
            )
    if not any(name for _, name, _, _ in pieces):
        raise ValueError("has no field; put one in braces, as in {input}")
    return tuple((literal, name) for literal, name, _, _ in pieces)


def field_names(template: str) -> tuple[str, ...]:
    """The fields of a template, each once, in order."""
    return tuple(dict.fromkeys(name for _, name in parse(template) if name))


def fill(template: str, fields: Mapping[str, str]) -> str:
    """The template with its fields filled in; braces in the fields are only text."""
    return "".join(literal + (fields[name] if name else "") for literal, name in parse(template))
