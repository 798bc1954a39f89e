"""The tables of flags in the pages, made from the commands' own parsers.

    python tests/pages/flags.py

writes them anew into minigen/pages: after a flag or its help was changed. A table stands between `<!-- flags: NAME -->`
and `<!-- end -->`; NAME is a command, or one of the sets of flags that several commands share. A command's table leaves
these out.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

PAGES = Path(__file__).resolve().parents[2] / "minigen" / "pages"
Signature = tuple[tuple[str, ...], str | None]  # what makes flags of two commands the same

TABLE = re.compile(r"(<!-- flags: (.+?) -->\n)(.*?)(<!-- end -->\n)", re.DOTALL)


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of each command; of a command with actions, that of each action ("cache build")."""
    main = import_module("minigen.cli.main")
    found = {}
    for command in main.COMMANDS:
        own = subparsers(main.build_parser(command))[command]
        actions = {f"{command} {name}": parser for name, parser in subparsers(own).items()}
        found |= actions or {command: own}
    return found


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def shared() -> dict[str, argparse.ArgumentParser]:
    """The sets of flags that several commands have."""
    parser = import_module("minigen.cli.parser").Parser
    model_arguments = import_module("minigen.cli.model_arguments")
    sampling_arguments = import_module("minigen.cli.sampling_arguments")
    sets = {
        name: parser(prog=name, add_help=False) for name in ("running", "sampling", "speculation")
    }
    model_arguments.add_model_arguments(sets["running"], positional=False)
    for action in sets["running"]._actions:
        if (
            action.dest == "model"
        ):  # a flag of some commands, the first word of others: in the table of each
            action.help = argparse.SUPPRESS
    sampling_arguments.add_sampling_arguments(sets["sampling"])
    model_arguments.add_speculation_arguments(sets["speculation"])
    return sets


def tables() -> dict[str, str]:
    """Each table by its name: one for each group of flags, with the group's title above it."""
    sets = {name: signatures(parser) for name, parser in shared().items()}
    found = {name: table_of(parser, set()) for name, parser in shared().items()}
    for name, parser in parsers().items():
        own = signatures(parser)
        left_out = [flags for flags in sets.values() if flags <= own]
        found[name] = table_of(parser, set().union(*left_out))
    return found


def signatures(parser: argparse.ArgumentParser) -> set[Signature]:
    return {signature(action) for action in parser._actions if is_listed(action)}


def signature(action: argparse.Action) -> Signature:
    return tuple(action.option_strings), action.help


def table_of(parser: argparse.ArgumentParser, left_out: set[Signature]) -> str:
    parts: list[tuple[str, list[str]]] = [("", [])]
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if is_listed(action)]
        rows = [row_of(action) for action in actions if signature(action) not in left_out]
        if group.title in ("positional arguments", "options"):
            parts[0][1].extend(rows)
        else:
            parts.append((f"**{group.title}**\n\n", rows))
    parts = [(title, rows) for title, rows in parts if rows]
    if len(parts) == 1:
        parts = [("", parts[0][1])]
    written = [
        title + "\n".join(["| flag | meaning |", "|---|---|", *rows, ""]) for title, rows in parts
    ]
    return "".join(f"\n{part}" for part in written) + "\n"


def is_listed(action: argparse.Action) -> bool:
    return action.help is not argparse.SUPPRESS and action.dest != "help"


def row_of(action: argparse.Action) -> str:
    names = ", ".join(action.option_strings)
    values = value_of(action)
    text = (action.help or "").replace("%%", "%").replace("|", r"\|").replace("<", r"\<")
    return f"| `{' '.join(filter(None, (names, values)))}` | {text} |"


def value_of(action: argparse.Action) -> str:
    """What stands behind a flag: its metavar, or its choices."""
    if action.nargs == 0:
        return ""
    name = action.dest.upper()
    if action.metavar is not None:
        name = action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar)
    elif action.choices is not None:
        name = "{" + ",".join(map(str, action.choices)) + "}"
    if isinstance(action.nargs, int) and isinstance(action.metavar, str):
        return " ".join([name] * action.nargs)
    if action.nargs == "?" and action.option_strings:
        return f"[{name}]"
    return f"{name} ..." if action.nargs in ("*", "+") else name


def renewed(text: str) -> str:
    """A page with its tables as they should be."""
    every = tables()
    return TABLE.sub(lambda match: match[1] + every.get(match[2], match[3]) + match[4], text)


def named_in(text: str) -> Iterator[str]:
    """The names of the tables in a page."""
    return (match[2] for match in TABLE.finditer(text))


def main() -> int:
    for path in sorted(PAGES.glob("*.md")):
        old = path.read_text(encoding="utf-8")
        new = renewed(old)
        if new != old:
            path.write_text(new, encoding="utf-8")
            print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
