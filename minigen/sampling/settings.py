"""The settings of sampling: what they are called, which values they take, and which of them are switched on.

Every default means "off": with `Sampling()` a token is drawn from the model's own distribution.
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
    """Turn the numbers of `group` into plain int and float. Raises UsageError for the first out of its range."""
    for f in fields(group):
        if f.name in _RANGES:
            number = _RANGES[f.name].check(f.name, getattr(group, f.name))
            object.__setattr__(group, f.name, number)


def _check_bias(logit_bias: Any) -> dict[int, float]:
    """Return a plain copy of `logit_bias`. Raises UsageError for a key that is no id or a value that is none."""
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
    """Which tokens may be drawn: each cut works on what the one before it left, and leaves at least one."""

    top_k: int = 0  # the k best, and what ties with the k-th; 0: off
    top_p: float = 1.0  # Holtzman et al. 2020: the smallest set of best tokens with this much mass
    min_p: float = 0.0  # Nguyen et al. 2024: at least this share of the best token's probability
    typical_p: float = 1.0  # Meister et al. 2022: this much mass, nearest to the expected information first
    epsilon_cutoff: float = 0.0  # Hewitt et al. 2022: at least this probability
    eta_cutoff: float = 0.0  # Hewitt et al. 2022: the same, lowered where the entropy is high

    def __post_init__(self) -> None:
        _check_numbers(self)


@dataclass(frozen=True)
class Penalties:
    """What changes single logits before the temperature, in this order.

    The presence and the frequency penalty are those of OpenAI and vLLM: the prompt's tokens do not count.
    """

    repetition_penalty: float = 1.0  # Keskar et al. 2019: over the prompt and what was generated
    presence_penalty: float = 0.0  # subtracted once from every token generated so far
    frequency_penalty: float = 0.0  # subtracted as many times as the token was generated
    no_repeat_ngram_size: int = 0  # Paulus et al. 2018: no n-gram of the whole sequence twice; 0: off
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)  # token id -> what is added

    def __post_init__(self) -> None:
        _check_numbers(self)
        object.__setattr__(self, "logit_bias", _check_bias(self.logit_bias))


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; `Sampling.of` takes flat names. Raises UsageError for a value out of range."""

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
        """Make it from the flat names in `SETTINGS`: `Sampling.of(temperature=0.8, top_p=0.9, seed=1)`.

        UsageError for a name that is no setting, or a value out of its range.
        """
        for name in settings:
            if name not in SETTINGS:
                raise UsageError(f"{name} is no sampling setting: {advice(name, SETTINGS)}")

        def part(names: tuple[Field[Any], ...]) -> dict[str, Any]:
            return {f.name: settings[f.name] for f in names if f.name in settings}

        groups: dict[str, Any] = {
            "cuts": Cuts(**part(fields(Cuts))),
            "penalties": Penalties(**part(fields(Penalties))),
        }
        return cls(**part(fields(cls)), **groups)

    def flat(self) -> dict[str, Any]:
        """Return every setting by its flat name, in the order in which they apply, the seed last."""
        values = {
            **vars(self.cuts),
            **vars(self.penalties),
            "temperature": self.temperature,
            "seed": self.seed,
        }
        return {name: values[name] for name in SETTINGS}

    def replace(self, **changes: Any) -> "Sampling":
        """Return a copy with some of the flat settings changed; the same errors as `of`."""
        return Sampling.of(**{**self.flat(), **changes})

    def seeded(self) -> "Sampling":
        """Return itself, or where no seed is set a copy with a random one, short enough to be typed again."""
        return self if self.seed is not None else self.replace(seed=secrets.randbits(32))

    @cached_property
    def active(self) -> frozenset[str]:
        """The names of the settings that differ from their default, and so do something."""
        return frozenset(name for name, value in self.flat().items() if value != _DEFAULTS[name])

    @property
    def is_greedy(self) -> bool:
        """True where the choice is the plain argmax of the model's logits, so that a backend can take it."""
        return self.temperature == 0 and self.active.isdisjoint(_PENALTIES)


_PENALTIES = tuple(f.name for f in fields(Penalties))
SETTINGS = (*_PENALTIES, "temperature", *(f.name for f in fields(Cuts)), "seed")
_DEFAULTS: Mapping[str, Any] = MappingProxyType(Sampling().flat())
