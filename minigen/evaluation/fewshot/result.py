"""What a run of a prompt file gives: plain frozen data, which the statistics, tables and plots read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ItemResult:
    """One item, answered. Log-probabilities are in nats; the four tuples of choices have one entry a choice."""

    index: int  # of the item in the file, from 0
    input: str  # the item's own block of the prompt, without description and examples
    output: str  # what was generated, or the choice taken
    answer: str | None  # the right one; None: unknown
    correct: (
        float | None
    )  # 1, 0, 1/m where m choices tie for the best and the right one is among them; None: unknown
    choices: tuple[str, ...] = ()
    choice_logprobs: tuple[float, ...] = ()  # sums over the scored tokens, see stretch.py
    choice_tokens: tuple[int, ...] = ()  # how many those are
    scores: tuple[float, ...] = ()  # what was compared: after normalisation and calibration
    tied: int = 1  # choices that share the best score
    prompt_logprobs: tuple[
        tuple[str, float | None], ...
    ] = ()  # of each token of the prompt, if asked; None: the first


@dataclass(frozen=True)
class RunResult:
    """All items behind one choice of examples."""

    shots: int
    seed: int
    items: tuple[ItemResult, ...]


@dataclass(frozen=True)
class FileResult:
    """All runs of a prompt file. Tokens and seconds are those of this process, not of a run that it resumed."""

    file: Path
    model: str
    runs: tuple[RunResult, ...]
    tokens_read: int
    tokens_saved: int
    seconds: float
