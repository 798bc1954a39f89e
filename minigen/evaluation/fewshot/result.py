"""Results of a prompt file, as frozen dataclasses for the statistics, tables and plots."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ItemResult:
    """One answered item.

    Log-probabilities are in nats; the four tuples have one entry per choice.
    """

    index: int  # of the item in the file, from 0
    input: str  # the item's own block of the prompt, without description and examples
    output: str  # what was generated, or the choice taken
    answer: str | None  # the right one; None: unknown
    # From 0 to 1; 1/m if the right choice is one of m that tie for the best; None: unknown.
    correct: float | None
    choices: tuple[str, ...] = ()
    choice_logprobs: tuple[float, ...] = ()  # sums over the scored tokens, see stretch.py
    choice_tokens: tuple[int, ...] = ()  # how many tokens are scored
    scores: tuple[float, ...] = ()  # the compared scores, normalized and calibrated
    tied: int = 1  # choices that share the best score
    # Each token of the prompt with its log-probability, on request; the first token has None.
    prompt_logprobs: tuple[tuple[str, float | None], ...] = ()


@dataclass(frozen=True)
class RunResult:
    """All items, answered after one selection of examples."""

    shots: int
    seed: int
    items: tuple[ItemResult, ...]


@dataclass(frozen=True)
class FileResult:
    """All runs of a prompt file.

    Tokens and seconds are those of this process, without those of a run that it resumed.
    """

    file: Path
    model: str
    runs: tuple[RunResult, ...]
    tokens_read: int
    tokens_saved: int
    seconds: float
