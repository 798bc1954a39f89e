"""What a file of weights says of a tensor."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a checkpoint: where it is and what it is."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int = field(default=0, compare=False)  # the place in the file of its first byte
