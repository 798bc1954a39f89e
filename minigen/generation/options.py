"""The settings of one run by their flat names, checked together: what to generate, and how to choose each token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from minigen.errors import UsageError
from minigen.generation.stopping import StopStrings
from minigen.reading.spellings import advice
from minigen.sampling import SETTINGS, Sampling
from minigen.sampling.settings import plain_number

# What a user gets who names no setting; every other sampling setting is off.
DEFAULTS: Mapping[str, Any] = {"temperature": 0.8, "top_p": 0.95}


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
    speculate: str | None = None  # "lookup": guess tokens by what the text has said before, and read several at once
    draft_tokens: int = 10  # guesses at most in one pass of speculation
    sampling: Sampling = field(default_factory=lambda: Sampling.of(**DEFAULTS).seeded())

    @classmethod
    def of(cls, **settings: Any) -> Options:
        """Options from flat names, sampling settings among them. Raises UsageError for an unknown or bad one."""
        names = [f.name for f in fields(cls) if f.name != "sampling"]
        for name in settings:
            if name not in names and name not in SETTINGS:
                raise UsageError(f"{name} is no setting: {advice(name, (*names, *SETTINGS))}")
        drawn = {name: value for name, value in settings.items() if name in SETTINGS}
        choosing = {name: value for name, value in drawn.items() if name != "seed"}
        own = {name: value for name, value in settings.items() if name in names}
        options = cls(sampling=Sampling.of(**{**DEFAULTS, **drawn}).seeded(), **own)
        if options.beams > 1 and choosing not in ({}, {"temperature": 0}):
            raise UsageError(f"beam search draws nothing: drop {', '.join(choosing)}, or beams")
        return options

    def __post_init__(self) -> None:
        StopStrings(self.stop)  # raises for what is no list of strings
        check_whole("max_tokens", self.max_tokens, 1, None, optional=True)
        check_whole("num_samples", self.num_samples, 1, 4096)
        check_whole("logprobs", self.logprobs, 0, None, optional=True)
        check_whole("beams", self.beams, 1, 256)
        check_whole("draft_tokens", self.draft_tokens, 1, 64)
        if self.speculate not in (None, "lookup"):
            raise UsageError(f"speculate is {self.speculate!r}: it must be 'lookup' or None")
        for name in ("ignore_eos", "special"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{name} is {getattr(self, name)!r}: it must be True or False")
        penalty = plain_number(self.length_penalty, whole=False)
        if penalty is None or not 0 <= penalty <= 10:
            raise UsageError(f"length_penalty is {self.length_penalty!r}: it must be a number from 0 to 10")
        if self.beams > 1 and (self.logprobs is not None or self.num_samples > 1):
            raise UsageError(
                "beam search gives one continuation without logprobs: drop num_samples, logprobs, or beams"
            )


def check_whole(name: str, value: Any, least: int, most: int | None, optional: bool = False) -> None:
    """Raises UsageError unless `value` is a whole number in the range, or None where that is allowed."""
    if value is None and optional:
        return
    number = plain_number(value, whole=True)
    if number is None or number < least or (most is not None and number > most):
        wanted = f">= {least}" if most is None else f"from {least} to {most}"
        raise UsageError(f"{name} is {value!r}: it must be a whole number {wanted}")
