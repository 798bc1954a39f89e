"""The input of a training step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Batch:
    """Rows of tokens. Tokens that are not trained on, such as padding, have the weight 0."""

    ids: npt.NDArray[np.int64]  # (B, T)
    targets: npt.NDArray[np.int64]  # (B, T): the token after each
    weights: npt.NDArray[np.float32]  # (B, T): 1 where the target is trained on, 0 elsewhere
