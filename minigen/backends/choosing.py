"""The operations of `Backend` that choose a token: largest values, sums, orders."""

from __future__ import annotations

from typing import Protocol

from minigen.backends.quantized import Array


class Choosing(Protocol):
    """Implemented in torch/choice.py and mlx/choice.py."""

    def best(self, x: Array) -> tuple[Array, Array]:
        """The largest value of the last axis and its index: the lowest index among equal values.

        For a row with NaN the value is NaN, and the index may be any.
        """
        ...

    def top_k(self, x: Array, k: int) -> tuple[Array, Array]:
        """The k largest values of the last axis and their indices (..., k), in any order.

        For a row with NaN the result may be any.
        """
        ...

    def logsumexp(self, x: Array) -> Array:
        """x (..., V) -> (...), in float32 for any dtype of `x`."""
        ...

    def argsort(self, x: Array) -> Array:
        """The indices that put the last axis of x in increasing order."""
        ...

    def cumsum(self, x: Array) -> Array:
        """Running sums of integers along the last axis. (Float sums may vary by run on a GPU.)"""
        ...

    def exp(self, x: Array) -> Array: ...

    def gather(self, x: Array, indices: Array) -> Array:
        """x (B, N), indices (B, K) -> (B, K): from each row of x, the values at its indices."""
        ...
