"""Quantized matrices in a model's operations: what the matrix of floats that they stand for would give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minigen.backends import Backend, get_backend
from minigen.backends.base import Quantized
from minigen.backends.quantized import arrays_of
from minigen.tree import flatten, leaves, unflatten

Numbers = np.ndarray[Any, Any]
BITS_AND_GROUPS = [(8, 32), (8, 64), (4, 32), (4, 64), (4, 128)]


def draw(*shape: int) -> Numbers:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


@pytest.fixture(autouse=True)
def _parted(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """Torch unpacks a matrix in parts of one row or two."""
    if backend == "torch":
        from minigen.backends.torch import quantized as torch_quantized

        monkeypatch.setattr(torch_quantized, "AT_ONCE", dict.fromkeys((False, True), 300))


@pytest.mark.parametrize(("bits", "group"), BITS_AND_GROUPS)
def test_linear_and_embedding(ops: Backend, bits: int, group: int) -> None:
    held = ops.quantize(ops.asarray(draw(7, 128)), bits, group)
    plain = ops.dequantize(held)
    assert plain.shape == (7, 128)
    for x in (draw(1, 1, 128), draw(2, 3, 128), draw(5, 128)):
        for bias in (None, ops.asarray(draw(7))):
            got, want = (
                ops.numpy(ops.linear(ops.asarray(x), weight, bias)) for weight in (held, plain)
            )
            assert got.shape == (*x.shape[:-1], 7)
            assert np.abs(got - want).max() <= 1e-5
    ids = ops.asarray([[6, 0, 6], [2, 5, 1]])
    got, want = (ops.numpy(ops.embedding(ids, weight)) for weight in (held, plain))
    assert got.shape == (2, 3, 128)
    assert np.abs(got - want).max() <= 1e-6


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_half_precision(backend: str, device: str, dtype: str) -> None:
    ops = get_backend(backend, device, dtype)
    held = ops.quantize(ops.asarray(draw(7, 128)), 8, 64)
    x, ids = ops.asarray(draw(2, 3, 128)), ops.asarray([[1, 6]])
    got, want = (ops.linear(x, weight) for weight in (held, ops.dequantize(held)))
    rows = ops.embedding(ids, held)
    assert {str(y.dtype).rsplit(".", 1)[-1] for y in (got, rows, *held.arrays[1:])} == {dtype}
    assert (
        np.abs(ops.numpy(got) - ops.numpy(want)).max() <= 0.25
    )  # of numbers up to 30, with 8 bits
    assert np.array_equal(ops.numpy(rows), ops.numpy(ops.dequantize(held))[None, [1, 6]])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("bits", "group"), BITS_AND_GROUPS)
def test_the_bits_of_mlx(backend: str, device: str, dtype: str, bits: int, group: int) -> None:
    mx = pytest.importorskip("mlx.core")
    ops = get_backend(backend, device, dtype)
    for size in (1.0, 1e-2, 1e-8, 0.0):
        numbers = draw(9, 256) * np.float32(size)
        wanted = mx.quantize(
            mx.array(numbers).astype(getattr(mx, dtype)), group_size=group, bits=bits
        )
        held = ops.quantize(ops.asarray(numbers), bits, group)
        assert np.array_equal(ops.numpy(held.packed), np.array(wanted[0]))
        for one, other in zip(held.arrays[1:], wanted[1:], strict=True):
            assert np.array_equal(ops.numpy(one), np.array(other.astype(mx.float32)))
        back = mx.dequantize(*wanted, group_size=group, bits=bits).astype(mx.float32)
        bound = {"float32": 1e-6, "bfloat16": 2e-2, "float16": 2e-3}[
            dtype
        ]  # MLX rounds after each operation
        assert np.abs(ops.numpy(ops.dequantize(held)) - np.array(back)).max() <= 4 * bound * size


def test_it_is_one_leaf(ops: Backend) -> None:
    held = ops.quantize(ops.asarray(draw(4, 64)), 4, 64)
    tree = {"a": [{"weight": held}, {"weight": held.scales}]}
    assert [type(leaf) is Quantized for leaf in leaves(tree)] == [True, False]
    assert list(flatten(tree)) == ["a.0.weight", "a.1.weight"]
    assert unflatten(flatten(tree))["a"][0]["weight"] is held
    assert len(list(arrays_of(tree))) == 4
    ops.sync(tree)
