"""How fast this machine multiplies matrices, and how many operations a token takes: together the MFU."""

from __future__ import annotations

import time

import numpy as np

from minigen.backends.base import Backend
from minigen.decoder import Decoder
from minigen.families.family import Architecture
from minigen.tree import flatten

SIZES = {False: 1024, True: 8192}  # of the square matrices; by whether it is a GPU
SECONDS = 0.3


def measure_peak(ops: Backend, seconds: float = SECONDS) -> float:
    """Floating-point operations a second of a square matrix product in the dtype of `ops`: the best of several."""
    size = SIZES[ops.accelerated]
    rng = np.random.default_rng(0)
    x, weight = (ops.asarray(rng.standard_normal((size, size), dtype=np.float32)) for _ in range(2))
    times: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(times) < 3:
        start = time.perf_counter()
        ops.sync(ops.linear(x, weight))
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def parameters(architecture: Architecture) -> int:
    return sum(int(np.prod(param.shape)) for param in flatten(architecture.shapes()).values())


def flops_per_token(architecture: Architecture, context: int) -> float:
    """Of one training step, forward and backward: 6 N + 12 L C T (Chowdhery et al. 2022, appendix B).

    N: weights that a token is multiplied with, so without positions, and without the embedding unless it is the head
    too. L layers, C the width of all heads together, T the context: attention, counted as if every token saw all T,
    as is the custom. Recurrent models: 6 N.
    """
    shapes = flatten(architecture.shapes())
    tied = "head.weight" not in shapes
    lookups = {"positions.weight"} | (set() if tied else {"embedding.weight"})
    weights = sum(int(np.prod(p.shape)) for path, p in shapes.items() if len(p.shape) == 2 and path not in lookups)
    attention = 0
    if isinstance(architecture, Decoder):
        attention = sum(block.attention.heads * block.attention.head_dim for block in architecture.blocks)
    return 6.0 * weights + 12.0 * attention * context
