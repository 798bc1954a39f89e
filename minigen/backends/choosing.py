"""The part of `Backend` that a token is chosen with: the best, sums, orders."""

from __future__ import annotations

from typing import Protocol

from minigen.backends.quantized import Array


class Choosing(Protocol):
    """Those operations, which torch/choice.py and mlx/choice.py have."""

    def best(self, x: Array) -> tuple[Array, Array]:
        """The largest value of the last axis and its index, the lowest among equals; of a row with NaN, NaN and any
        index."""
        ...

    def top_k(self, x: Array, k: int) -> tuple[Array, Array]:
        """The k largest values of the last axis and their indices (..., k), in any order; of a row with NaN, any."""
        ...

    def logsumexp(self, x: Array) -> Array:
        """x (..., V) -> (...), in float32 whatever the dtype of `x`."""
        ...

    def argsort(self, x: Array) -> Array:
        """The indices that put the last axis of x in increasing order."""
        ...

    def cumsum(self, x: Array) -> Array:
        """Running sums of whole numbers along the last axis. (Of floats a GPU's need not be the same twice.)"""
        ...

    def exp(self, x: Array) -> Array: ...

    def gather(self, x: Array, indices: Array) -> Array:
        """x (B, N), indices (B, K) -> (B, K): from each row of x, what stands at its indices."""
        ...
