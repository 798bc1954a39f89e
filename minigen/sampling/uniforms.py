"""Uniform numbers without state: one for each (seed, sequence, position), the same on every machine.

Counter-based (Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"): nothing is
consumed in order, so a rewound, forked, batched or speculated sequence meets the same number at the same
position again.
"""

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigen.errors import UsageError, shown

LIMIT = 2**64  # the seed, the sequence and the position are one 64-bit word each


def check_word(name: str, value: Any) -> int:
    """Return `value` as an int. Raises UsageError unless it is a whole number from 0 to 2**64 - 1."""
    try:
        word = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        word = -1
    if not 0 <= word < LIMIT:
        raise UsageError(f"{name} is {shown(value)}: it must be a whole number >= 0 and < 2**64")
    return word


def uniform(seed: int, sequence: int, position: int) -> float:
    """Return the number in [0, 1), a multiple of 2**-53, of this `position` of `sequence` under `seed`.

    Philox 4x64 with 10 rounds: the key is (seed, sequence), the counter is the position, and the first of the
    four words of that block gives its upper 53 bits. Raises UsageError for an argument outside 0 .. 2**64 - 1.
    """
    return float(uniforms(seed, sequence, position, 1)[0])


def uniforms(seed: int, sequence: int, start: int, count: int) -> NDArray[np.float64]:
    """Return `uniform` at the positions start .. start + count - 1: (count,) float64."""
    key = np.array([check_word("seed", seed), check_word("sequence", sequence)], dtype=np.uint64)
    stream = np.random.Philox(key=key, counter=check_word("position", start))
    # A block of four words a counter value: a position owns a whole block, so neighbours share nothing.
    words = stream.random_raw(4 * count)[::4]
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
