"""The settings of generation by their flat names and types, for editors and type checkers.

They are written out because a type checker runs no code. tests/generation/test_settings.py keeps
them equal to the fields of `Options` and `Sampling`, from which the flags, `/set` and the
documentation are made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict


class SamplingSettings(TypedDict, total=False):
    """How the next token is chosen; see `minigen.sampling.settings`."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    epsilon_cutoff: float
    eta_cutoff: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    no_repeat_ngram_size: int
    logit_bias: Mapping[int, float]
    seed: int | None


class IdSettings(SamplingSettings, total=False):
    """The settings of `Model.generate_ids`: those that do not concern text."""

    max_tokens: int | None
    ignore_eos: bool
    beams: int
    length_penalty: float
    speculate: Literal["lookup"] | None
    draft_tokens: int


class TextSettings(IdSettings, total=False):
    """The settings of `Model.generate` and `Model.stream`."""

    stop: Sequence[str]
    special: bool


class CompletionSettings(TextSettings, total=False):
    """The settings of `Model.complete` and `Options.of`: all of them."""

    num_samples: int
    logprobs: int | None


class ChatSettings(SamplingSettings, total=False):
    """The settings of a `Chat`."""

    max_tokens: int | None
    stop: Sequence[str]
    speculate: Literal["lookup"] | None
    draft_tokens: int
