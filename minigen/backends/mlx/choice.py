"""The operations of `Choosing` on MLX: largest values, sums, orders."""

from __future__ import annotations

import math

import mlx.core as mx

from minigen.backends.base import Array


def partition(x: Array, k: int) -> tuple[Array, Array]:
    """The k largest numbers of the last axis and their indices, in any order."""
    indices = mx.argpartition(-x, k - 1, axis=-1)[..., :k]
    return mx.take_along_axis(x, indices, axis=-1), indices


class MLXChoice:
    """A part of MLXBackend; `Choosing` describes its methods."""

    accelerated: bool

    def best(self, x: Array) -> tuple[Array, Array]:
        indices = mx.argmax(x, axis=-1, keepdims=True)
        values = mx.take_along_axis(x, indices, axis=-1)[..., 0]
        # Metal's argmax passes over NaN, and in MLX 0.32.1 that of the CPU too.
        return mx.where(mx.isnan(x).any(axis=-1), mx.nan, values), indices[..., 0]

    def top_k(self, x: Array, k: int) -> tuple[Array, Array]:
        size = x.shape[-1]
        width = math.isqrt(size // k)
        if width < 2:
            return partition(x, k)
        # On a GPU a partition sorts all that it is given. The k largest numbers lie in the k groups with the largest
        # maxima, so that two short rows are sorted instead of a whole vocabulary.
        groups = size // width
        whole = x[..., : groups * width].reshape(*x.shape[:-1], groups, width)
        _, chosen = partition(whole.max(axis=-1), k)
        within = mx.arange(width, dtype=chosen.dtype)
        near = (chosen[..., None] * width + within).reshape(*x.shape[:-1], k * width)
        rest = mx.arange(groups * width, size, dtype=chosen.dtype)  # what fills no group
        near = mx.concatenate([near, mx.broadcast_to(rest, (*x.shape[:-1], rest.size))], axis=-1)
        values, at = partition(mx.take_along_axis(x, near, axis=-1), k)
        return values, mx.take_along_axis(near, at, axis=-1)

    def logsumexp(self, x: Array) -> Array:
        return mx.logsumexp(x.astype(mx.float32), axis=-1)

    def argsort(self, x: Array) -> Array:
        return mx.argsort(x, axis=-1)

    def cumsum(self, x: Array) -> Array:
        return mx.cumsum(x, axis=-1)

    def exp(self, x: Array) -> Array:
        return mx.exp(x)

    def gather(self, x: Array, indices: Array) -> Array:
        return mx.take_along_axis(x, indices, axis=-1)
