"""The flags of training settings, made from their declarations."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import dataclasses

METAVARS = {float: "X", int: "N"}


def add_flag(group: Any, name: str, field: dataclasses.Field[Any]) -> None:
    """Add the flag of a setting. It has no default: a preset or a file may set it too."""
    flag = f"--{name.replace('_', '-')}"
    options: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS}
    choices = [choice for choice in field.metadata["choices"] if choice]
    if isinstance(field.default, bool):
        options["action"] = argparse.BooleanOptionalAction
    else:
        options["type"] = type_of(field.default)
        if isinstance(field.default, tuple):
            options["nargs"] = len(field.default) or "+"
        if choices:
            options["choices"] = choices
        else:
            options["metavar"] = METAVARS.get(options["type"], "TEXT")
    group.add_argument(flag, help=help_of(field), **options)


def type_of(default: Any) -> type:
    """The type of a setting, by its default; of a tuple, the type of its items."""
    if not isinstance(default, tuple):
        return type(default)
    return float if default else str


def help_of(field: dataclasses.Field[Any]) -> str:
    """The help of a setting, with its default."""
    text: str = field.metadata["help"].replace("%", "%%")
    default = as_text(field.default)
    if not default or "default" in text:
        return text
    return f"{text} (default: {default})"


def as_text(default: Any) -> str:
    """A default as people write it."""
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, float):
        return f"{default:g}"
    if isinstance(default, tuple):
        return " ".join(f"{number:g}" for number in default)
    return str(default)
