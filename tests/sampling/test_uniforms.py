"""The uniform numbers: pinned values, independence of what is asked, and refusals."""

from typing import Any

import numpy as np
import pytest

from minigen.errors import UsageError
from minigen.sampling.uniforms import uniform, uniforms

MASK = 2**64 - 1


def philox(key: tuple[int, int], counter: int) -> int:
    """The first word of Philox 4x64-10 by the paper's definition, in plain Python integers."""
    words, (k0, k1) = [counter & MASK, counter >> 64, 0, 0], key
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * words[0], 0xCA5A826395121157 * words[2]
        words = [(b >> 64) ^ words[1] ^ k0, b & MASK, (a >> 64) ^ words[3] ^ k1, a & MASK]
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & MASK, (k1 + 0xBB67AE8584CAA73B) & MASK
    return words[0]


@pytest.mark.parametrize(
    ("seed", "sequence", "position", "expected"),
    [
        (0, 0, 0, 0.011546754286331562),
        (0, 0, 1, 0.5023796042735054),
        (1, 0, 0, 0.3035680343067586),
        (0, 1, 0, 0.8133540609793564),
        (1234, 5, 678, 0.12610750000750692),
        (2**64 - 1, 2**64 - 1, 2**64 - 1, 0.005915559114363478),
    ],
)
def test_the_numbers_are_pinned(seed: int, sequence: int, position: int, expected: float) -> None:
    assert uniform(seed, sequence, position) == expected


@pytest.mark.parametrize("position", [0, 1, 1000, MASK])
def test_the_numbers_are_those_of_the_published_generator(position: int) -> None:
    # NumPy counts up before it makes a block, so position p is the block of the counter p + 1.
    for seed, sequence in [(0, 0), (5, 6), (MASK, MASK)]:
        assert (
            uniform(seed, sequence, position)
            == (philox((seed, sequence), position + 1) >> 11) * 2.0**-53
        )


def test_a_range_is_the_same_numbers() -> None:
    assert uniforms(7, 1, 40, 25).tolist() == [uniform(7, 1, p) for p in range(40, 65)]
    assert uniforms(7, 1, 40, 0).shape == (0,)


def test_the_numbers_look_uniform_and_differ_between_seeds_and_sequences() -> None:
    rows = np.stack(
        [uniforms(seed, sequence, 0, 20_000) for seed, sequence in [(0, 0), (1, 0), (0, 1)]]
    )
    assert rows.min() >= 0
    assert rows.max() < 1
    counts = np.array([np.histogram(row, bins=20, range=(0, 1))[0] for row in rows])
    assert abs(counts - 1000).max() < 150  # 5 standard deviations
    assert abs(np.corrcoef(rows) - np.eye(3)).max() < 0.03
    assert abs(np.corrcoef(rows[0][1:], rows[0][:-1])[0, 1]) < 0.03


@pytest.mark.parametrize("value", [-1, 2**64, 1.0, "1", None, True])
@pytest.mark.parametrize("name", ["seed", "sequence", "position"])
def test_what_is_no_64_bit_number_is_refused(name: str, value: Any) -> None:
    arguments: dict[str, Any] = {"seed": 1, "sequence": 2, "position": 3, name: value}
    with pytest.raises(
        UsageError, match=rf"^{name} is {value!r}: it must be a whole number >= 0 and < 2\*\*64$"
    ):
        uniform(**arguments)


def test_numpy_integers_are_numbers_too() -> None:
    assert uniform(np.uint64(5), np.int64(6), np.int32(7)) == uniform(5, 6, 7)
