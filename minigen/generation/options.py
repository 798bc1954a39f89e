"""The settings of one run, checked together: what to generate, and how to choose each token.

Users give them by flat names, without the groups that the dataclasses have.
"""

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

# The defaults of sampling. Every other sampling setting is off.
DEFAULTS: Mapping[str, Any] = {"temperature": 0.8, "top_p": 0.95}

RANGES: Mapping[str, Range] = {
    "max_tokens": Range(whole=True, least=1),
    "num_samples": Range(whole=True, least=1, most=4096),
    "logprobs": Range(whole=True, least=0),
    "beams": Range(whole=True, least=1, most=256),
    "draft_tokens": Range(whole=True, least=1, most=64),
    "length_penalty": Range(least=0, most=10),
}
OPTIONAL = ("max_tokens", "logprobs")  # may be None


@dataclass(frozen=True)
class Options:
    """How to generate. `sampling` always has a seed, so that every run can be repeated."""

    max_tokens: int | None = None  # None: up to 256, as the context allows
    stop: Sequence[str] = ()  # the text ends before the first of these
    num_samples: int = 1  # continuations of each prompt
    ignore_eos: bool = False  # continue after a stop token
    logprobs: int | None = None  # how many alternatives to record with each token
    special: bool = False  # parse special tokens in the text
    beams: int = 1  # more than 1: beam search with so many beams
    length_penalty: float = 0.6  # of beam search
    speculate: str | None = None  # "lookup": guess tokens that repeat earlier text
    draft_tokens: int = 10  # maximum number of guesses per pass of speculation
    sampling: Sampling = field(default_factory=lambda: Sampling.of(**DEFAULTS).seeded())

    @classmethod
    def of(cls, **settings: Unpack[CompletionSettings]) -> Options:
        """Options from flat names, with the sampling settings among them.

        Raises UsageError for a setting that is unknown or has a bad value.
        """
        names = [field.name for field in fields(cls)]
        names.remove("sampling")
        own: dict[str, Any] = {}
        sampling: dict[str, Any] = {}
        for name, value in settings.items():
            if name in names:
                own[name] = value
            elif name in SETTINGS:
                sampling[name] = value
            else:
                known = advice(name, (*names, *SETTINGS))
                raise UsageError(f"{name} is not a setting: {known}")
        options = cls(sampling=Sampling.of(**{**DEFAULTS, **sampling}).seeded(), **own)
        sampling.pop("seed", None)
        if options.beams > 1 and sampling not in ({}, {"temperature": 0}):
            raise UsageError(f"beam search draws nothing: drop {', '.join(sampling)}, or beams")
        return options

    def __post_init__(self) -> None:
        StopStrings(self.stop)  # raises for anything but a list of strings
        for name, allowed in RANGES.items():
            value = getattr(self, name)
            if value is not None or name not in OPTIONAL:
                allowed.check(name, value)
        if self.speculate not in (None, "lookup"):
            raise UsageError(f"speculate is {self.speculate!r}: it must be 'lookup' or None")
        for name in ("ignore_eos", "special"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{name} is {getattr(self, name)!r}: it must be True or False")
        if self.beams > 1 and (self.logprobs is not None or self.num_samples > 1):
            raise UsageError(
                "beam search gives one continuation without logprobs: drop num_samples, logprobs, "
                "or beams"
            )
