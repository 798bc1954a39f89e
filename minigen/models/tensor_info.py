"""What the header of a weight file says about a tensor."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a checkpoint.

    `dtype` is safetensors' name for it, `start` the offset of the tensor's first byte in the file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int = field(default=0, compare=False)
