"""The settings of sampling: their names, their values, and which of them are in use.

Every default means "off": `Sampling()` draws a token from the model's own distribution.
"""

import secrets
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from functools import cached_property
from types import MappingProxyType
from typing import Any

from minigen.errors import UsageError
from minigen.reading.settings import Range
from minigen.reading.spellings import advice
from minigen.sampling.uniforms import check_word

_RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "temperature": Range(least=0),
        "top_k": Range(whole=True, least=0),
        "top_p": Range(above=0, most=1),
        "min_p": Range(least=0, most=1),
        "typical_p": Range(above=0, most=1),
        "epsilon_cutoff": Range(least=0, below=1),
        "eta_cutoff": Range(least=0, below=1),
        "repetition_penalty": Range(above=0),
        "presence_penalty": Range(),
        "frequency_penalty": Range(),
        "no_repeat_ngram_size": Range(whole=True, least=0),
    }
)
_ID, _BIAS = Range(whole=True, least=0), Range()


def _check_numbers(group: "Sampling | Cuts | Penalties") -> None:
    """Turns the numbers of `group` into plain int and float. Raises UsageError if one is out of range."""
    for f in fields(group):
        if f.name in _RANGES:
            number = _RANGES[f.name].check(f.name, getattr(group, f.name))
            object.__setattr__(group, f.name, number)


def _check_bias(logit_bias: Any) -> dict[int, float]:
    """A plain copy of `logit_bias`. Raises UsageError for keys that are not ids or invalid values."""
    if not isinstance(logit_bias, Mapping):
        raise UsageError(f"logit_bias is {logit_bias!r}: it must map token ids to numbers")
    plain: dict[int, float] = {}
    for key, value in logit_bias.items():
        token, bias = _ID.take(key), _BIAS.take(value)
        if token is None:
            raise UsageError(f"logit_bias has the key {key!r}: it must be a token id, {_ID}")
        if bias is None:
            raise UsageError(f"logit_bias of token {key} is {value!r}: it must be {_BIAS}")
        plain[int(token)] = bias
    return plain


@dataclass(frozen=True)
class Cuts:
    """Which tokens may be drawn. Each cut applies to what the previous left, at least a token."""

    # The k best, and what ties with the k-th; 0: off.
    top_k: int = 0
    # The smallest set of best tokens with this much mass (Holtzman et al. 2020).
    top_p: float = 1.0
    # At least this fraction of the best token's probability (Nguyen et al. 2024).
    min_p: float = 0.0
    # This much mass, what is closest to the expected information first (Meister et al. 2022).
    typical_p: float = 1.0
    # At least this probability (Hewitt et al. 2022).
    epsilon_cutoff: float = 0.0
    # The same, but less if the entropy is high (Hewitt et al. 2022).
    eta_cutoff: float = 0.0

    def __post_init__(self) -> None:
        _check_numbers(self)


@dataclass(frozen=True)
class Penalties:
    """What changes single logits before the temperature, in this order.

    The presence and frequency penalties are those of OpenAI and vLLM: tokens of the prompt do not
        count.
    """

    # For tokens of the prompt and generated ones (Keskar et al. 2019).
    repetition_penalty: float = 1.0
    # Subtracted once from every token generated so far.
    presence_penalty: float = 0.0
    # Subtracted as many times as the token was generated.
    frequency_penalty: float = 0.0
    # No n-gram of the whole sequence twice (Paulus et al. 2018); 0: off.
    no_repeat_ngram_size: int = 0
    # What is added, by token id.
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _check_numbers(self)
        object.__setattr__(self, "logit_bias", _check_bias(self.logit_bias))


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. `Sampling.of` takes flat names.

    Raises UsageError for a value out of range.
    """

    temperature: float = 1.0  # 0: greedy, the best token, the lowest id among equals
    cuts: Cuts = field(default_factory=Cuts)
    penalties: Penalties = field(default_factory=Penalties)
    seed: int | None = None  # 0 .. 2**64 - 1; None: not chosen yet, see `seeded`

    def __post_init__(self) -> None:
        _check_numbers(self)
        assert isinstance(self.cuts, Cuts)
        assert isinstance(self.penalties, Penalties)
        if self.seed is not None:
            object.__setattr__(self, "seed", check_word("seed", self.seed))

    @classmethod
    def of(cls, **settings: Any) -> "Sampling":
        """From flat names of `SETTINGS`: `Sampling.of(temperature=0.8, top_p=0.9, seed=1)`.

        UsageError for a name that is not a setting, or a value out of range.
        """
        for name in settings:
            if name not in SETTINGS:
                raise UsageError(f"{name} is not a sampling setting: {advice(name, SETTINGS)}")

        def part(names: tuple[Field[Any], ...]) -> dict[str, Any]:
            return {f.name: settings[f.name] for f in names if f.name in settings}

        groups: dict[str, Any] = {
            "cuts": Cuts(**part(fields(Cuts))),
            "penalties": Penalties(**part(fields(Penalties))),
        }
        return cls(**part(fields(cls)), **groups)

    def flat(self) -> dict[str, Any]:
        """Every setting by its flat name, in the order in which they apply, the seed last."""
        values = {
            **vars(self.cuts),
            **vars(self.penalties),
            "temperature": self.temperature,
            "seed": self.seed,
        }
        return {name: values[name] for name in SETTINGS}

    def replace(self, **changes: Any) -> "Sampling":
        """A copy with some of the flat settings changed; the errors are those of `of`."""
        return Sampling.of(**{**self.flat(), **changes})

    def seeded(self) -> "Sampling":
        """Itself, or a copy with a random seed if it has none, short enough to be typed again."""
        if self.seed is not None:
            return self
        return self.replace(seed=secrets.randbits(32))

    @cached_property
    def active(self) -> frozenset[str]:
        """The names of the settings that differ from their default."""
        return frozenset(name for name, value in self.flat().items() if value != _DEFAULTS[name])

    @property
    def is_greedy(self) -> bool:
        """Whether the choice is the argmax of the model's logits, which a backend can compute."""
        return self.temperature == 0 and self.active.isdisjoint(_PENALTIES)


_PENALTIES = tuple(f.name for f in fields(Penalties))
SETTINGS = (*_PENALTIES, "temperature", *(f.name for f in fields(Cuts)), "seed")
_DEFAULTS: Mapping[str, Any] = MappingProxyType(Sampling().flat())
