"""The command line as people type it: argparse, with other programs' spellings, and values that begin with a dash."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from minigen.reading.spellings import nearest, spellings

LONG = re.compile(r"--[A-Za-z][\w-]+")
SHORT = re.compile(r"-[A-Za-z]")
CLOSE = 0.8  # so similar to a flag, a word after a flag is rather a flag with a mistake in it than a value
SPELLED = "Flags may be written with _ for -, and as other programs commonly spell them"


def say(message: str) -> None:
    """An error, as one line whatever a user's file or flag is called."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
    print(f"minigen: {line}", file=sys.stderr)


class Parser(argparse.ArgumentParser):
    """argparse, with errors as one line, and what is not known named with what it is near to.

    A flag may be written with underscores, or as `minigen.reading.spellings` has it where that is no flag of this
    command. The value of a flag that takes a text may begin with a dash, unless it looks like a flag.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "allow_abbrev": False})
        self.named: dict[str, argparse.Action] = {}  # positional arguments by the dest of the flags that they have too
        self.needed: list[argparse.Action] = []  # of these, those that must be there

    def error(self, message: str) -> NoReturn:
        say(f"{message} (see {self.prog} --help)")
        self.exit(2)

    def format_help(self) -> str:
        if len(self._option_string_actions) <= 2:  # -h and --help: only subcommands
            return super().format_help()
        also = [f"{action.metavar} also as {self.flags_of(dest)[-1]}" for dest, action in self.named.items()]
        return f"{super().format_help()}\n{'; '.join([SPELLED, *also])}.\n"

    # -- positional arguments that have flags too ---------------------------------------------------------------------
    def also(self, action: argparse.Action, *flags: str) -> None:
        """Lets a positional argument be given by flags, which the help does not list one by one."""
        dest = f"{action.dest} by flag"
        self.named[dest] = action
        self.add_argument(*flags, dest=dest, action="append", help=argparse.SUPPRESS)

    def flags_of(self, dest: str) -> list[str]:
        return [flag for flag, action in self._option_string_actions.items() if action.dest == dest]

    def relax(self, words: Sequence[str]) -> None:
        """Does not ask for positional arguments in their places where a flag may give one."""
        flags = [flag for dest in self.named for flag in self.flags_of(dest)]
        if not any(word.startswith(flag) for word in words for flag in flags):
            return
        self.needed = [action for action in self.named.values() if action.required]
        for action in self.named.values():
            action.required = False
            action.nargs = "*" if action.nargs in ("+", "*") else "?"

    def merge(self, found: argparse.Namespace) -> None:
        """Puts what flags gave in the places of the positional arguments; the words without a flag keep their order."""
        given: dict[argparse.Action, list[str]] = {
            action: vars(found).pop(dest) or [] for dest, action in self.named.items()
        }
        for action, values in given.items():
            if values and action.nargs == "*":
                setattr(found, action.dest, [*getattr(found, action.dest), *values])
        single = [action for action in given if action.nargs == "?"]
        words = [word for action in single if (word := getattr(found, action.dest)) is not None]
        places = [action for action in single if not given[action]]
        for place, action in enumerate(single):
            values = given[action]
            if values and len(words) > len(places):  # it is given in its place too
                values.append(words.pop(min(place, len(words) - 1)))
            for value in values:
                if value != values[0]:
                    self.error(f"{action.metavar} is given as {values[0]} and as {value}: name one")
            setattr(found, action.dest, values[0] if values else None)
        for action, word in zip(places, words, strict=False):
            setattr(found, action.dest, word)
        missing = [str(action.metavar) for action in self.needed if not getattr(found, action.dest)]
        if missing:
            self.error(f"the following arguments are required: {', '.join(missing)}")

    # -- words --------------------------------------------------------------------------------------------------------
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, which calls it for the words of each subcommand; but what is unknown is an error here."""
        words = self.as_known(sys.argv[1:] if args is None else list(args))
        self.relax(words)
        found, unknown = super().parse_known_args(words, namespace)
        if unknown:
            hints = [hint for word in unknown if (hint := self.hint(word))]
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hints[0] if hints else ''}")
        self.merge(found)
        return found, []

    def as_known(self, words: Sequence[str]) -> list[str]:
        """The words with every flag spelled as this command has it, and values that begin with a dash joined to it."""
        written: list[str] = []
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if word == "--":  # only positional arguments from here on
                return [*written, word, *rest]
            name, equals, value = word.partition("=")
            flag = self.flag_of(name)
            if flag is None:
                written.append(word)
            elif equals:
                written.append(f"{flag}={value}")
            elif rest and len(rest[0]) > 1 and rest[0].startswith("-") and takes_text(action := self.action_of(flag)):
                written += self.joined(flag, action, rest)
            else:
                written.append(flag)
        return written

    def joined(self, flag: str, action: argparse.Action, rest: list[str]) -> list[str]:
        """A flag that takes a text, and the next word, which begins with a dash, as its value where it can only be
        that. The word is then taken out of the `rest`."""
        word, long, like = rest[0], action.option_strings[-1], self.like_a_flag(rest[0])
        if action.nargs == "?" and (like or word == "--"):
            return [flag]  # it may be without a value
        if like or action.nargs == "+":
            names = "/".join(action.option_strings)
            looks = "looks like a flag" if like else "begins with a dash"
            self.error(f"argument {names}: expected a value, and {word} {looks}: if it is meant, write {long}={word}")
        return [f"{long}={rest.pop(0)}"]

    def like_a_flag(self, word: str) -> bool:
        """Whether a word after a flag that takes a value may be a flag itself, maybe with a mistake in it."""
        name = word.partition("=")[0]
        if self.flag_of(name) is not None:
            return True
        if word[:2] in self._option_string_actions and self.action_of(word[:2]).type is int:
            return word[2:].isdecimal()  # -n5
        return bool(LONG.fullmatch(name) and get_close_matches(plain(name), spellings(self.names()), 1, CLOSE))

    def flag_of(self, word: str) -> str | None:
        """The flag of this command that a word is, or means; None for any other word."""
        if word in self._option_string_actions:
            return word
        if not (LONG.fullmatch(word) or SHORT.fullmatch(word)):
            return None
        names = self.names()
        return names.get(spellings(names).get(plain(word), ""))

    def names(self) -> dict[str, str]:
        """This command's long flags by their names with underscores."""
        return {plain(flag): flag for flag in self._option_string_actions if flag.startswith("--")}

    def action_of(self, flag: str) -> argparse.Action:
        return self._option_string_actions[flag]

    # -- what is wrong ------------------------------------------------------------------------------------------------
    def hint(self, word: str) -> str:
        """What an unknown word may have been meant to be."""
        if not word.startswith("-"):
            return ""
        found = nearest(plain(word.partition("=")[0]), self.names())
        if found:
            return f" (did you mean {' or '.join(as_flag(name) for name in found)}?)"
        return f" (did you mean the file ./{word}?)" if Path(word).exists() else ""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        near = get_close_matches(str(value), known, 1)
        advice = f" (did you mean {near[0]}?)" if near else f" (choose from {', '.join(known)})"
        raise argparse.ArgumentError(action, f"invalid choice: {value!r}{advice}")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.option_strings and action.nargs is None and arg_strings == ["--"]:
            return self._get_value(action, "--")  # older versions of argparse take it out
        return super()._get_values(action, arg_strings)


def plain(flag: str) -> str:
    """The name of a flag as `minigen.reading.spellings` has it."""
    return flag.lstrip("-").replace("-", "_")


def as_flag(name: str) -> str:
    return f"--{name.replace('_', '-')}" if len(name) > 1 else f"-{name}"


def takes_text(action: argparse.Action) -> bool:
    """Whether any text is a value of a flag."""
    return action.nargs in (None, "?", "+") and action.type in (None, str, Path) and action.choices is None
