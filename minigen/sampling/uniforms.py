"""Uniform numbers without state: one for each (seed, sequence, position), equal on every machine.

They are counter-based (Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as
1, 2, 3"): nothing is consumed in order, so a rewound, forked, batched or speculated sequence gets
the same number at the same position again.
"""

import operator
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigen.errors import UsageError, shown

LIMIT = 2**64  # the seed, the sequence and the position are one 64-bit word each


def check_word(name: str, value: Any) -> int:
    """`value` as an int. Raises UsageError unless it is a whole number from 0 to 2**64 - 1."""
    word = -1
    if not isinstance(value, bool):
        with suppress(TypeError):
            word = operator.index(value)
    if not 0 <= word < LIMIT:
        raise UsageError(f"{name} is {shown(value)}: it must be a whole number >= 0 and < 2**64")
    return word


def uniform(seed: int, sequence: int, position: int) -> float:
    """The number in [0, 1), a multiple of 2**-53, at this `position` of `sequence` under `seed`.

    It is made by Philox 4x64 with 10 rounds: the key is (seed, sequence), the counter is the
    position, and the upper 53 bits of the first of the four words in that block are used.
    Raises UsageError for an argument outside 0 .. 2**64 - 1.
    """
    return float(uniforms(seed, sequence, position, 1)[0])


def uniforms(seed: int, sequence: int, start: int, count: int) -> NDArray[np.float64]:
    """`uniform` at the positions start .. start + count - 1: (count,) float64."""
    key = np.array([check_word("seed", seed), check_word("sequence", sequence)], dtype=np.uint64)
    stream = np.random.Philox(key=key, counter=check_word("position", start))
    # There are four words per counter value: a position has a whole block of its own.
    words = stream.random_raw(4 * count)[::4]
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
