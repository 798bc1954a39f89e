"""The settings of one run by their flat names, checked together: what to generate, and how to choose each token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from minigen.errors import UsageError
from minigen.generation.stopping import StopStrings
from minigen.reading.settings import Range
from minigen.reading.spellings import advice
from minigen.sampling import SETTINGS, Sampling

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from minigen.generation.settings import CompletionSettings

# What a user gets who names no setting; every other sampling setting is off.
DEFAULTS: Mapping[str, Any] = {"temperature": 0.8, "top_p": 0.95}

RANGES: Mapping[str, Range] = {
    "max_tokens": Range(whole=True, least=1),
    "num_samples": Range(whole=True, least=1, most=4096),
    "logprobs": Range(whole=True, least=0),
    "beams": Range(whole=True, least=1, most=256),
    "draft_tokens": Range(whole=True, least=1, most=64),
    "length_penalty": Range(least=0, most=10),
}
OPTIONAL = ("max_tokens", "logprobs")  # of these, those that may be None


@dataclass(frozen=True)
class Options:
    """How to run. Sampling has always a seed, so that what was drawn can be drawn again."""

    max_tokens: int | None = None  # None: up to 256, as the context allows
    stop: Sequence[str] = ()  # the text ends before the first of these
    num_samples: int = 1  # continuations of each prompt
    ignore_eos: bool = False  # go on after a stop token
    logprobs: int | None = None  # alternatives to record with each token
    special: bool = False  # special tokens written in the text count as such
    beams: int = 1  # more than 1: beam search of this width
    length_penalty: float = 0.6  # of beam search
    speculate: str | None = (
        None  # "lookup": guess tokens by what the text has said before, and read several at once
    )
    draft_tokens: int = 10  # guesses at most in one pass of speculation
    sampling: Sampling = field(default_factory=lambda: Sampling.of(**DEFAULTS).seeded())

    @classmethod
    def of(cls, **settings: Unpack[CompletionSettings]) -> Options:
        """Options from flat names, sampling settings among them. Raises UsageError for an unknown or bad one."""
        given: dict[str, Any] = {**settings}
        names = [f.name for f in fields(cls) if f.name != "sampling"]
        for name in given:
            if name not in names and name not in SETTINGS:
                raise UsageError(f"{name} is no setting: {advice(name, (*names, *SETTINGS))}")
        drawn = {name: value for name, value in given.items() if name in SETTINGS}
        choosing = {name: value for name, value in drawn.items() if name != "seed"}
        own = {name: value for name, value in given.items() if name in names}
        options = cls(sampling=Sampling.of(**{**DEFAULTS, **drawn}).seeded(), **own)
        if options.beams > 1 and choosing not in ({}, {"temperature": 0}):
            raise UsageError(f"beam search draws nothing: drop {', '.join(choosing)}, or beams")
        return options

    def __post_init__(self) -> None:
        StopStrings(self.stop)  # raises for what is no list of strings
        for name, numbers in RANGES.items():
            value = getattr(self, name)
            if value is not None or name not in OPTIONAL:
                numbers.check(name, value)
        if self.speculate not in (None, "lookup"):
            raise UsageError(f"speculate is {self.speculate!r}: it must be 'lookup' or None")
        for name in ("ignore_eos", "special"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{name} is {getattr(self, name)!r}: it must be True or False")
        if self.beams > 1 and (self.logprobs is not None or self.num_samples > 1):
            raise UsageError(
                "beam search gives one continuation without logprobs: drop num_samples, logprobs, or beams"
            )
