"""Codes of a checkpoint in those that a backend computes with: the same numbers as MLX makes of them, bit for bit."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from minigen.backends import DTYPES, Backend, get_backend
from minigen.backends.quantized import MODES, Quantized, computed_in
from minigen.backends.recoding import as_floats, float8, pack, recode, scales_of, unpack

Numbers = np.ndarray[Any, Any]
AFFINE = list(product(sorted(MODES["affine"].bits), MODES["affine"].groups))
FLOATS = [mode for mode in MODES if mode != "affine"]


def draw(*shape: int) -> Numbers:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def words_of(codes: Numbers, bits: int) -> Numbers:
    """Each row of codes as one long number, the first in its lowest bits."""
    rows = [sum(int(code) << bits * i for i, code in enumerate(row)) for row in codes]
    size = codes.shape[1] * bits // 8
    return np.array([np.frombuffer(row.to_bytes(size, "little"), np.uint32) for row in rows])


def integers(ops: Backend, x: Numbers) -> Any:
    """An array of bytes or words, as it is read from a file."""
    if ops.name == "mlx":
        return pytest.importorskip("mlx.core").array(x)
    return pytest.importorskip("torch").from_numpy(x.copy())


@pytest.mark.parametrize("bits", sorted(MODES["affine"].bits))
def test_codes_in_words(ops: Backend, bits: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 2**bits, (3, 96)).astype(np.uint8)
    codes[1] = 2**bits - 1
    words = words_of(codes, bits)
    assert np.array_equal(ops.numpy(unpack(ops, integers(ops, words), bits)), codes)
    assert np.array_equal(ops.numpy(pack(ops, integers(ops, codes), bits)), words)


def stored(ops: Backend, arrays: Any, group: int, bits: int, mode: str) -> Quantized:
    """What MLX quantized, as arrays of the backend."""
    mx = pytest.importorskip("mlx.core")
    packed, scales, *biases = arrays
    floats = [
        ops.asarray(np.array(x.astype(mx.float32))) for x in (scales, *biases) if mode == "affine"
    ]
    scales, biases = floats or (integers(ops, np.array(scales)), None)
    return Quantized(integers(ops, np.array(packed)), scales, biases, group, bits, mode)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("bits", "group"), AFFINE)
def test_more_bits(backend: str, dtype: str, bits: int, group: int) -> None:
    """The codes of MLX, whatever they are packed in, with its scales and biases; so the same numbers."""
    mx = pytest.importorskip("mlx.core")
    ops = get_backend(backend, "cpu", dtype)
    try:
        given = mx.quantize(
            mx.array(draw(5, 256)).astype(getattr(mx, dtype)), group_size=group, bits=bits
        )
    except ValueError as error:  # older ones do not write 1 bit
        pytest.skip(str(error))
    wide = [given[0], *(x.astype(mx.float32) for x in given[1:])]
    want = np.array(mx.dequantize(*wide, group_size=group, bits=bits))
    weight = stored(ops, given, group, bits, "affine")
    kind = computed_in(backend, "affine", bits)
    assert kind is not None
    for more in {bits, kind[1], 8}:
        held = recode(ops, weight, "affine", more)
        assert (held.bits, held.group, held.packed.shape) == (more, group, (5, 256 * more // 32))
        assert (held.scales is weight.scales, held.biases is weight.biases) == (True, True)
        codes = ops.numpy(unpack(ops, held.packed, more)).reshape(5, -1, group).astype(np.float32)
        scales, biases = (ops.numpy(x)[..., None] for x in held.arrays[1:])
        assert np.array_equal((codes * scales + biases).reshape(5, 256), want)
    held = recode(ops, weight, *kind)
    assert np.array_equal(ops.numpy(as_floats(ops, weight)), ops.numpy(ops.dequantize(held)))
    bound = {"float32": 1e-6, "bfloat16": 3e-2, "float16": 4e-3}[
        dtype
    ]  # MLX rounds after each operation
    assert np.abs(ops.numpy(as_floats(ops, weight)) - want).max() <= bound
    check_product(ops, draw(3, 256), held, want)


def check_product(ops: Backend, x: Numbers, weight: Quantized, numbers: Numbers) -> None:
    y, size = ops.numpy(ops.linear(ops.asarray(x), weight)), np.abs(x) @ np.abs(numbers).T
    share = {"float32": 1e-6, "bfloat16": 2e-2, "float16": 3e-3}[ops.dtype]
    assert (np.abs(y - x @ numbers.T) <= share * size).all()


def every_code(mode: str) -> tuple[Numbers, Numbers]:
    """Words and scales of rows with every code; a row for each of many scales, with which no dtype makes
    0 or infinity of a number."""
    bits, group = MODES[mode].bits[0], MODES[mode].groups[0]
    scales = np.arange(256) if mode == "nvfp4" else np.arange(127 - 12, 127 + 1)
    scales = scales[scales & 127 != 127] if mode == "nvfp4" else scales
    codes = np.tile(np.arange(256) % 2**bits, (len(scales), 1))
    if bits == 8:
        codes[:, [127, 255]] = 0  # NaN
    return words_of(codes, bits), np.repeat(scales.astype(np.uint8)[:, None], 256 // group, axis=1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", FLOATS)
def test_floats_of_4_and_8_bits(
    backend: str, dtype: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mx = pytest.importorskip("mlx.core")
    monkeypatch.setattr("minigen.backends.recoding.AT_ONCE", 1000)  # a few rows at a time
    ops, kind = get_backend(backend, "cpu", dtype), getattr(mx, dtype)
    bits, group = MODES[mode].bits[0], MODES[mode].groups[0]
    words, scales = every_code(mode)
    want = np.array(
        mx.dequantize(mx.array(words), mx.array(scales), mode=mode, dtype=kind).astype(mx.float32)
    )
    assert np.isfinite(want).all()
    weight = Quantized(integers(ops, words), integers(ops, scales), None, group, bits, mode)
    found = as_floats(ops, weight)
    assert str(found.dtype).endswith(dtype)
    assert np.array_equal(ops.numpy(found), want)
    held = computed_in(backend, mode, bits)
    assert held == {"mlx": (mode, bits), "torch": None if bits == 8 else ("affine", 8)}[backend]
    if held is None:
        return
    weight = recode(ops, weight, *held)
    assert np.array_equal(ops.numpy(ops.dequantize(weight)), want)
    ids = ops.asarray([[3, 0, 12]])
    assert np.array_equal(ops.numpy(ops.embedding(ids, weight)), want[None, [3, 0, 12]])
    check_product(ops, draw(2, 3, 256), weight, want)


def test_what_a_float_of_8_bits_is() -> None:
    """From the standard: sign, 4 bits of exponent, 3 of fraction; the largest is 448, the smallest 2^-9."""
    named = {
        0x00: 0,
        0x01: 2**-9,
        0x07: 7 / 512,
        0x08: 2**-6,
        0x38: 1,
        0x3C: 1.5,
        0x7E: 448,
        0xFE: -448,
        0xB8: -1,
    }
    assert {code: float8()[code] for code in named} == named
    assert np.flatnonzero(np.isnan(float8())).tolist() == [0x7F, 0xFF]


@pytest.mark.parametrize(("mode", "code"), [("mxfp4", 255), ("nvfp4", 127), ("mxfp8", 255)])
def test_scales_that_are_no_numbers(ops: Backend, mode: str, code: int) -> None:
    words, scales = every_code(mode)
    scales[1, 2] = code
    bits, group = MODES[mode].bits[0], MODES[mode].groups[0]
    weight = Quantized(integers(ops, words), integers(ops, scales), None, group, bits, mode)
    assert np.argwhere(~np.isfinite(ops.numpy(scales_of(ops, weight)))).tolist() == [[1, 2]]


def test_every_kind_is_held_somehow(backend: str) -> None:
    found = {
        (mode, bits): computed_in(backend, mode, bits)
        for mode in MODES
        for bits in MODES[mode].bits
    }
    more = {
        bits: kind for (mode, bits), kind in found.items() if mode == "affine" and kind is not None
    }
    assert set(more) == set(MODES["affine"].bits)
    assert all(kind == "affine" and held >= bits for bits, (kind, held) in more.items())
    assert [more[bits][1] for bits in (4, 8)] == [4, 8]


def test_nothing_else(ops: Backend) -> None:
    """A matrix that is held as it is stored is the same object."""
    for bits, group in product((4, 8), (32, 64)):
        weight = ops.quantize(ops.asarray(draw(4, 128)), bits, group)
        assert recode(ops, weight, "affine", bits) is weight
