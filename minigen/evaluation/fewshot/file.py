"""A prompt file once it is read and checked, as frozen dataclasses, and its error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from minigen.errors import MinigenError

Pick = Literal["first", "random", "balanced"]
Normalize = Literal["none", "token", "byte", "uncond"]
Metric = Literal["exact", "contains", "f1", "regex", "accuracy"]
Fields = Mapping[str, str]


class PromptError(MinigenError):
    """A prompt file or its data is invalid: `FILE:LINE: key: what is wrong; what to do`."""


@dataclass(frozen=True)
class Example:
    """An example with its answer, which may be shown before an item."""

    fields: Fields  # values of the template's fields
    answer: str
    where: str  # FILE:LINE, for messages


@dataclass(frozen=True)
class Item:
    """One question: answered freely, by one of `choices`, or by the context that suits it best.

    With `contexts`, the same answer is scored after each of them, and the likeliest wins.
    """

    fields: Fields  # values of the template's fields; empty if there are contexts
    answer: str | None  # None: unknown, so the item is not scored
    choices: tuple[str, ...]
    contexts: tuple[Fields, ...]
    where: str
    gold: int | None = None  # index of the right choice or context; None: unknown or missing

    @property
    def variants(self) -> tuple[Fields, ...]:
        """The fields of each of the item's prompts: a single one, or one for each context."""
        return self.contexts or (self.fields,)


@dataclass(frozen=True)
class Shots:
    """How many examples are shown before an item, and which."""

    n: tuple[int, ...] = (0,)
    pick: Pick = "first"
    seeds: tuple[int, ...] = (0,)  # each 0 .. 2**64 - 1


@dataclass(frozen=True)
class Score:
    """How answers are judged."""

    normalize: Normalize = "none"
    metric: Metric = "exact"
    calibrate: tuple[str, ...] = ()  # content-free inputs (Zhao et al. 2021); empty: none
    uncond_context: str = "Answer:"  # for normalize = "uncond" (Brown et al. 2020)


@dataclass(frozen=True)
class PromptFile:
    """A whole prompt file with its data. Every text is exactly as the user wrote it."""

    path: Path
    description: str
    template: str
    answer_sep: str  # between prompt and answer, tokenized with the answer
    block_sep: str  # between description and blocks, and between blocks
    examples: tuple[Example, ...]
    items: tuple[Item, ...]
    choices: tuple[str, ...]  # shared by all items; empty: none, or each item has its own
    # Settings of minigen.generation.options.Options.
    generate: Mapping[str, Any] = field(default_factory=dict)
    shots: Shots = field(default_factory=Shots)
    score: Score = field(default_factory=Score)
