"""What a prompt file says once it is read and checked: plain frozen data, and the one error of this package."""

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
    """A prompt file or its data cannot be used: `FILE:LINE: key: what is wrong; what to do`."""


@dataclass(frozen=True)
class Example:
    """A worked example that may stand before an item."""

    fields: Fields  # what the template is filled with
    answer: str
    where: str  # FILE:LINE, for messages


@dataclass(frozen=True)
class Item:
    """One thing to be answered: freely, by one of `choices`, or by which of `contexts` makes `answer` likeliest."""

    fields: Fields  # what the template is filled with; empty where there are contexts
    answer: str | None  # None: unknown, so there is nothing to score
    choices: tuple[str, ...]
    contexts: tuple[Fields, ...]  # not empty: the same answer is scored after each of them
    where: str
    gold: int | None = (
        None  # the right one of the choices or contexts; None: unknown, or not among them
    )

    @property
    def variants(self) -> tuple[Fields, ...]:
        """The fields of each prompt that the item stands for: one, or as many as there are contexts."""
        return self.contexts or (self.fields,)


@dataclass(frozen=True)
class Shots:
    """How many examples stand before an item, and which."""

    n: tuple[int, ...] = (0,)
    pick: Pick = "first"
    seeds: tuple[int, ...] = (0,)  # each 0 .. 2**64 - 1


@dataclass(frozen=True)
class Score:
    """How answers are judged."""

    normalize: Normalize = "none"
    metric: Metric = "exact"
    calibrate: tuple[str, ...] = ()  # content-free inputs (Zhao et al. 2021); empty: off
    uncond_context: str = "Answer:"  # of normalize = "uncond" (Brown et al. 2020)


@dataclass(frozen=True)
class PromptFile:
    """A whole prompt file, its data read. Every text is exactly what the user wrote."""

    path: Path
    description: str
    template: str
    answer_sep: str  # between prompt and answer, tokenized with the answer
    block_sep: str  # between description and blocks, and between blocks
    examples: tuple[Example, ...]
    items: tuple[Item, ...]
    choices: tuple[str, ...]  # those of all items; empty: none, or each item has its own
    generate: Mapping[str, Any] = field(
        default_factory=dict
    )  # settings of minigen.generation.options.Options
    shots: Shots = field(default_factory=Shots)
    score: Score = field(default_factory=Score)
