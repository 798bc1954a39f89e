"""The settings of generation by their flat names and types, for editors and type checkers.

Written out, because a type checker runs nothing; tests/generation/test_settings.py holds it equal to the
fields of `Options` and `Sampling`, which the flags, `/set` and the documentation come from.
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
    """What `Model.generate_ids` takes: nothing that concerns text."""

    max_tokens: int | None
    ignore_eos: bool
    beams: int
    length_penalty: float
    speculate: Literal["lookup"] | None
    draft_tokens: int


class TextSettings(IdSettings, total=False):
    """What `Model.generate` and `Model.stream` take."""

    stop: Sequence[str]
    special: bool


class CompletionSettings(TextSettings, total=False):
    """What `Model.complete` and `Options.of` take: all there are."""

    num_samples: int
    logprobs: int | None


class ChatSettings(SamplingSettings, total=False):
    """What a `Chat` takes."""

    max_tokens: int | None
    stop: Sequence[str]
    speculate: Literal["lookup"] | None
    draft_tokens: int
