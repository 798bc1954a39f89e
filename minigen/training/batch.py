"""What a training step reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Batch:
    """Rows of tokens; what is not trained on, padding too, has the weight 0."""

    ids: npt.NDArray[np.int64]  # (B, T)
    targets: npt.NDArray[np.int64]  # (B, T): the token after each
    weights: npt.NDArray[np.float32]  # (B, T): 1 where the target is trained on, 0 elsewhere
