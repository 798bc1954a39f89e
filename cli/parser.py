"""The command line as people type it.

argparse, plus the flag names of other programs and values that begin with a dash.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from minigen.reading.spellings import nearest, spellings

from .flags import as_flag, begins_with_dash, plain, takes_text

LONG = re.compile(r"--[A-Za-z][\w-]+")
SHORT = re.compile(r"-[A-Za-z]")
CLOSE = 0.8  # a word after a flag that is this similar to a flag is taken for a misspelled flag
SPELLED = "Flags may be written with _ for -, and with names common in other programs"


def say(message: str) -> None:
    """Print an error as one line, whatever a user's file or flag is called."""
    line = ""
    for char in message:
        if char.isprintable():
            line += char
        else:
            line += char.encode("unicode_escape").decode()
    print(f"minigen: {line}", file=sys.stderr)


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors that suggest what an unknown word was meant to be.

    A flag may be written with underscores, or as `minigen.reading.spellings` has it if that is not
    a flag of this command. The value of a flag that takes text may begin with a dash, unless it
    looks like a flag.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "allow_abbrev": False})
        # The positional arguments that flags can give too, by the `dest` of those flags.
        self.named: dict[str, argparse.Action] = {}
        self.needed: list[argparse.Action] = []  # those of them that are required

    def error(self, message: str) -> NoReturn:
        say(f"{message} (see {self.prog} --help)")
        self.exit(2)

    def format_help(self) -> str:
        if len(self._option_string_actions) <= 2:  # -h and --help: only subcommands
            return super().format_help()
        notes = [SPELLED]
        for dest, action in self.named.items():
            notes.append(f"{action.metavar} also as {self.flags_of(dest)[-1]}")
        return f"{super().format_help()}\n{'; '.join(notes)}.\n"

    # -- positional arguments that have flags too --
    def also(self, action: argparse.Action, *flags: str) -> None:
        """Let flags give a positional argument too; the help does not list them one by one."""
        dest = f"{action.dest} by flag"
        self.named[dest] = action
        self.add_argument(*flags, dest=dest, action="append", help=argparse.SUPPRESS)

    def flags_of(self, dest: str) -> list[str]:
        """The flags that set `dest`."""
        flags = self._option_string_actions.items()
        return [flag for flag, action in flags if action.dest == dest]

    def relax(self, words: Sequence[str]) -> None:
        """Make the positional arguments optional if a flag may give one of them."""
        flags = tuple(flag for dest in self.named for flag in self.flags_of(dest))
        if not any(word.startswith(flags) for word in words):
            return
        for action in self.named.values():
            if action.required:
                self.needed.append(action)
            action.required = False
            action.nargs = "*" if action.nargs in ("+", "*") else "?"

    def merge(self, parsed: argparse.Namespace) -> None:
        """Move what flags gave to the positional arguments' names.

        Words without a flag fill the positional arguments that no flag gave, in their order.
        """
        given: dict[argparse.Action, list[str]] = {}
        for dest, action in self.named.items():
            given[action] = vars(parsed).pop(dest) or []
        single = []
        for action, values in given.items():
            if action.nargs == "?":
                single.append(action)
            elif values and action.nargs == "*":
                setattr(parsed, action.dest, [*getattr(parsed, action.dest), *values])
        self.merge_single(parsed, single, given)
        missing = []
        for action in self.needed:
            if not getattr(parsed, action.dest):
                missing.append(str(action.metavar))
        if missing:
            self.error(f"the following arguments are required: {', '.join(missing)}")

    def merge_single(
        self,
        parsed: argparse.Namespace,
        single: Sequence[argparse.Action],
        given: dict[argparse.Action, list[str]],
    ) -> None:
        """`merge`, for the positional arguments that take one word."""
        words = []
        open_actions = []  # those that no flag gave
        for action in single:
            word = getattr(parsed, action.dest)
            if word is not None:
                words.append(word)
            if not given[action]:
                open_actions.append(action)
        for position, action in enumerate(single):
            values = given[action]
            if not values:
                setattr(parsed, action.dest, None)
                continue
            if len(words) > len(open_actions):  # it is given by its position too
                values.append(words.pop(min(position, len(words) - 1)))
            for value in values:
                if value != values[0]:
                    first = values[0]
                    self.error(f"{action.metavar} is given as {first} and as {value}: name one")
            setattr(parsed, action.dest, values[0])
        for action, word in zip(open_actions, words, strict=False):
            setattr(parsed, action.dest, word)

    # -- words --
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, which calls it for each subcommand; but an unknown word is an error."""
        words = self.as_known(sys.argv[1:] if args is None else list(args))
        self.relax(words)
        parsed, unknown = super().parse_known_args(words, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self.first_hint(unknown)}")
        self.merge(parsed)
        return parsed, []

    def as_known(self, words: Sequence[str]) -> list[str]:
        """The words with every flag spelled as this command has it.

        A value that begins with a dash is joined to its flag: `--flag=-value`.
        """
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
            elif rest and begins_with_dash(rest[0]) and takes_text(self.action_of(flag)):
                written.append(self.joined(flag, rest))
            else:
                written.append(flag)
        return written

    def joined(self, flag: str, rest: list[str]) -> str:
        """A flag that takes text, joined with the next word if that can only be its value.

        The next word begins with a dash. It is removed from `rest` if it is the value.
        """
        action = self.action_of(flag)
        word = rest[0]
        long = action.option_strings[-1]
        looks_like_flag = self.like_a_flag(word)
        if action.nargs == "?" and (looks_like_flag or word == "--"):
            return flag  # it may be without a value
        if looks_like_flag or action.nargs == "+":
            names = "/".join(action.option_strings)
            looks = "looks like a flag" if looks_like_flag else "begins with a dash"
            self.error(
                f"argument {names}: expected a value, but {word} {looks}; "
                f"if it is the value, write {long}={word}"
            )
        return f"{long}={rest.pop(0)}"

    def like_a_flag(self, word: str) -> bool:
        """Whether a word after a flag that takes a value may be a flag itself, maybe misspelled."""
        name = word.partition("=")[0]
        if self.flag_of(name) is not None:
            return True
        if word[:2] in self._option_string_actions and self.action_of(word[:2]).type is int:
            return word[2:].isdecimal()  # -n5
        if not LONG.fullmatch(name):
            return False
        return bool(get_close_matches(plain(name), spellings(self.names()), 1, CLOSE))

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
        names = {}
        for flag in self._option_string_actions:
            if flag.startswith("--"):
                names[plain(flag)] = flag
        return names

    def action_of(self, flag: str) -> argparse.Action:
        """The argparse action of a flag of this command."""
        return self._option_string_actions[flag]

    # -- what is wrong --
    def first_hint(self, words: Sequence[str]) -> str:
        """A suggestion for the first unknown word that has one, else ""."""
        for word in words:
            hint = self.hint(word)
            if hint:
                return hint
        return ""

    def hint(self, word: str) -> str:
        """What an unknown word may have been meant to be."""
        if not word.startswith("-"):
            return ""
        names = nearest(plain(word.partition("=")[0]), self.names())
        if names:
            return f" (did you mean {' or '.join(as_flag(name) for name in names)}?)"
        if Path(word).exists():
            return f" (did you mean the file ./{word}?)"
        return ""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        near = get_close_matches(str(value), known, 1)
        if near:
            advice = f"did you mean {near[0]}?"
        else:
            advice = f"choose from {', '.join(known)}"
        raise argparse.ArgumentError(action, f"invalid choice: {value!r} ({advice})")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.option_strings and action.nargs is None and arg_strings == ["--"]:
            return self._get_value(action, "--")  # older versions of argparse remove it
        return super()._get_values(action, arg_strings)
