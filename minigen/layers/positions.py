"""Positions: learned vectors added to the embedding, or rotations of queries and keys."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from minigen.backends.base import Array, Backend
from minigen.layers.param import Param
from minigen.layers.step import Step


@dataclass(frozen=True)
class LearnedPositions:
    """One trained vector per position, as in GPT and GPT-2."""

    length: int

    def shapes(self, width: int) -> dict[str, Param]:
        return {"weight": Param((self.length, width), scale=0.01)}

    def apply(self, ops: Backend, p: Any, x: Array, step: Step) -> Array:
        """x (B, T, C) -> (B, T, C)."""
        return x + ops.embedding(ops.asarray(step.positions), p["weight"])


class RopeScaling(Protocol):
    """How rotary frequencies change in a model that was extended to a longer context."""

    def apply(self, frequencies: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """frequencies (D/2,) -> (D/2,)."""
        ...


@dataclass(frozen=True)
class LinearScaling:
    """Position interpolation (Chen et al. 2023): every position is divided by `factor`."""

    factor: float

    def apply(self, frequencies: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return frequencies / np.float32(self.factor)


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1's scaling by wavelength.

    Short waves keep their length, long ones are stretched by `factor`, those between are blended.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int

    def apply(self, frequencies: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        wavelengths = 2 * math.pi / frequencies  # in tokens
        rotations = self.original_context / wavelengths  # full ones within the original context
        blend = (rotations - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        blend = np.clip(blend, 0, 1)  # 0: stretch the wave, 1: leave it
        return (frequencies * (blend + (1 - blend) / self.factor)).astype(np.float32)


# From this position on, angles are computed in float64: in float32 they are off by 0.03 radians at
# a million. Below it they are float32, which makes them equal to those of transformers to the bit.
EXACT = 2**16


@dataclass(frozen=True)
class Rotary:
    """Rotary position embedding (Su et al. 2021) in the half-split layout of the hub's Llama.

    The first `dims` dimensions of a head are rotated, i together with i + dims/2; the rest pass
    through.
    """

    dims: int
    theta: float = 10000.0
    scaling: RopeScaling | None = None

    @lru_cache  # noqa: B019  (a frozen dataclass: the cache holds a few small ones)
    def frequencies(self) -> npt.NDArray[np.float32]:
        """(dims/2,) radians per position."""
        exponents = np.arange(0, self.dims, 2, dtype=np.float32) / np.float32(self.dims)
        frequencies = (1.0 / np.float32(self.theta) ** exponents).astype(np.float32)
        if self.scaling is None:
            return frequencies
        return self.scaling.apply(frequencies)

    def rotations(self, ops: Backend, step: Step) -> tuple[Array, Array]:
        """Cosines and sines (B or 1, 1, T, dims/2) for the new tokens, computed once per pass."""

        def compute() -> tuple[Array, Array]:
            positions, frequencies = step.positions[:, None, :, None], self.frequencies()
            angles = positions.astype(np.float32) * frequencies
            if positions.max() >= EXACT:
                exact = positions * frequencies.astype(np.float64)
                angles = np.where(positions < EXACT, angles, exact)
            return ops.asarray(np.cos(angles)), ops.asarray(np.sin(angles))

        cos, sin = step.share(self, compute)
        return cos, sin

    def apply(self, ops: Backend, x: Array, step: Step) -> Array:
        """Rotates queries or keys x (B, H, T, D) to the positions of the new tokens."""
        return ops.rotate(x, *self.rotations(ops, step))
