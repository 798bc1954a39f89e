"""The position of a run, as a checkpoint's position.json has it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HASHED = re.compile(r"(training/)?[\w-]+\.safetensors")  # files of a checkpoint with a hash
LARGEST = 1e300  # of a stored number; NaN is allowed


@dataclass(frozen=True)
class Position:
    """How far a run has come, and what it trains on."""

    step: int  # number of updates
    smoothed: float = 0.0  # of the training loss, before it is divided by `weight`
    weight: float = 0.0
    best_step: int | None = None  # of all validations
    best_loss: float | None = None
    config: Mapping[str, Any] | None = None
    data: str = ""  # the data set's key
    tokenizer: str = ""  # its identity
    teacher: str = ""  # its fingerprint
    hashes: Mapping[str, str] | None = None  # SHA-256 of the large files

    def check(self) -> None:
        """Raises ValueError for values of the wrong type, and for files outside the folder."""
        valid = type(self.step) is int and 0 <= self.step < 2**62
        for number in (self.smoothed, self.weight, self.best_step, self.best_loss):
            if number is not None:
                valid &= type(number) in (int, float) and not abs(number) > LARGEST
        valid &= self.smoothed is not None and self.weight is not None
        for text in (self.data, self.tokenizer, self.teacher):
            valid &= isinstance(text, str)
        for table in (self.config, self.hashes):
            valid &= isinstance(table, Mapping | None)
        if not valid:
            raise ValueError
        for name, value in (self.hashes or {}).items():
            if not HASHED.fullmatch(name) or not isinstance(value, str):
                raise ValueError
