"""Every operation of the Backend protocol, on each backend, against what NumPy says in float64.

An operation from arrays to arrays is a line of REFERENCE and some of CASES; any other has a test named after it.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from minigen.backends import BACKENDS, DTYPES, Backend, get_backend
from minigen.errors import BackendError

Numbers = np.ndarray[Any, Any]
TOLERANCE = {"float32": 3e-6, "bfloat16": 2e-2, "float16": 3e-3}  # beside the size of the numbers
PROTOCOL = {
    name: f
    for name, f in inspect.getmembers(Backend, inspect.isfunction)
    if not name.startswith("_")
}


def draw(*shape: int, seed: int = 0) -> Numbers:
    """Numbers of few bits: most of them are exact in every dtype."""
    return (
        np.round(np.random.default_rng([seed, *shape]).standard_normal(shape) * 32).astype(
            np.float32
        )
        / 32
    )


def normalise(x: Numbers, eps: float) -> Numbers:
    centred = x - x.mean(-1, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps))


def attend(q: Numbers, k: Numbers, v: Numbers, scale: float, mask: Numbers | str | None) -> Numbers:
    H, T, G, S = q.shape[1], q.shape[2], k.shape[1], k.shape[2]
    k, v = (np.repeat(x, H // G, axis=1) for x in (k, v))
    scores = np.einsum("bhtd,bhsd->bhts", q, k) * scale
    if mask is not None:
        causal = np.arange(S)[None] <= np.arange(T)[:, None] + S - T
        scores = np.where(causal if isinstance(mask, str) else mask, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(np.einsum("bhts,bhsd->bhtd", weights / weights.sum(-1, keepdims=True), v))


def written(buffers: list[Numbers], new: list[Numbers], position: int) -> list[Numbers]:
    after = [buffer.copy() for buffer in buffers]
    for buffer, x in zip(after, new, strict=True):
        buffer[:, :, position : position + x.shape[2]] = x
    return after


def rotated(x: Numbers, cos: Numbers, sin: Numbers) -> Numbers:
    half = cos.shape[-1]
    pairs = (x[..., :half] + 1j * x[..., half : 2 * half]) * (cos + 1j * sin)
    return np.concatenate([pairs.real, pairs.imag, x[..., 2 * half :]], -1)


def gelu(x: Numbers, approximate: bool) -> Numbers:
    if approximate:
        return np.asarray(x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
    return np.asarray(x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))))


def sigmoid(x: Numbers) -> Numbers:
    return np.asarray((1 + np.tanh(x / 2)) / 2)


IN_FLOAT32 = ("logsumexp",)  # whatever the backend's dtype

REFERENCE: dict[str, Callable[..., Any]] = {
    "contiguous": lambda x: x,
    "dropout": lambda x: x,
    "permute": np.transpose,
    "split": lambda x, sizes, axis: np.split(x, np.cumsum(sizes)[:-1], axis),
    "concat": np.concatenate,
    "stack": np.stack,
    "take": lambda x, indices, axis: np.take(x, list(indices), axis),
    "embedding": lambda ids, weight: weight[ids],
    "linear": lambda x, weight, bias=None: x @ weight.T + (0 if bias is None else bias),
    "layer_norm": lambda x, weight, bias, eps: (
        normalise(x, eps) * weight + (0 if bias is None else bias)
    ),
    "rms_norm": lambda x, weight, eps: x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight,
    "gelu": gelu,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x * sigmoid(x),
    "sigmoid": sigmoid,
    "exp": np.exp,
    "tanh": np.tanh,
    "scale_columns": lambda x, factors, plus=None: x * factors + (0 if plus is None else plus),
    "remembered": lambda buffer: buffer,
    "copy": lambda x: x,
    "assign": lambda buffer, new: new,
    "where": np.where,
    "rotate": rotated,
    "attention": attend,
    "write": written,
    "best": lambda x: [x.max(axis=-1), np.argmax(x, axis=-1)],
    "logsumexp": lambda x: np.logaddexp.reduce(x.astype(np.float64), axis=-1),
}

X = draw(2, 3, 5)
WIDE = np.concatenate([draw(3, 40) * 2, [[0, 1e-3, -1e-3, 12, -12] * 8]]).astype(np.float32)
SMALL = np.float32(0.125) * draw(2, 3, 7)  # its variance is near the eps of the norms below
LOUD = 500 * draw(2, 3, 7)  # its squares exceed float16
COUNTING = np.tile(np.arange(4, dtype=np.float32), (2, 3, 260))  # its maximum at 3, 7, 11, ...
LAST = np.where(np.arange(1040) < 1037, np.float32(-1), 0) * np.ones((2, 1), np.float32)
BUFFER = draw(2, 3, 7, 5)


def qkv(B: int, H: int, G: int, T: int, S: int, D: int = 5) -> tuple[Numbers, Numbers, Numbers]:
    return draw(B, H, T, D, seed=1), draw(B, G, S, D, seed=2), draw(B, G, S, D, seed=3)


def visible(*shape: int) -> Numbers:
    """A mask in which every query sees something, and not the same as the next one."""
    mask = np.random.default_rng(shape).random(shape) < 0.5
    mask[..., 0] |= ~mask.any(-1)
    return mask


CASES: dict[str, list[tuple[Any, ...]]] = {
    "contiguous": [(X,), (X.transpose(2, 0, 1),)],
    "dropout": [(X,)],
    "permute": [(X, (2, 0, 1)), (X, (1, 0, 2)), (BUFFER, (0, 2, 1, 3))],
    "split": [(X, (1, 4), -1), (X, [2, 1], 1), (draw(7, 2), (1, 4, 2), 0), (X, (5,), 2)],
    "concat": [([X, draw(2, 4, 5)], 1), ([X, draw(2, 3, 1), X], -1), ([X], 0)],
    "stack": [([X, 2 * X, 3 * X], axis) for axis in (0, 1, 3, -1)],
    "take": [(X, (1, 0, 1, 1), 0), (X, [2, 0], 1), (X, (4, 4, 0), -1), (BUFFER, [1], 0)],
    "embedding": [(np.array([[3, 0, 3], [6, 5, 1]], dtype), draw(7, 5)) for dtype in (np.int64, np.uint16)],
    "linear": [(X, draw(4, 5)), (X, draw(4, 5), None), (X, draw(4, 5), draw(4)), (draw(5), draw(4, 5), draw(4))],
    "layer_norm": [
        (x, draw(7), bias, eps)
        for x in (SMALL, LOUD, 3 + SMALL) for bias in (None, draw(7, seed=1)) for eps in (1e-5, 0.03)
    ],
    "rms_norm": [(x, draw(7), eps) for x in (SMALL, LOUD, 1 + SMALL) for eps in (1e-6, 0.03)],
    "gelu": [(WIDE, True), (WIDE, False)],
    "relu": [(WIDE,)],
    "silu": [(WIDE,)],
    "sigmoid": [(WIDE,)],
    "exp": [(-np.abs(WIDE),), (np.array([-np.inf, -90, 0], np.float32),)],
    "tanh": [(WIDE,)],
    "scale_columns": [(X, draw(5)), (X, draw(5), draw(5, seed=1)), (draw(4, 5), draw(5), None)],
    "remembered": [(X,)],
    "copy": [(X,), (X.transpose(2, 0, 1),)],
    "assign": [(X, 2 * X), (BUFFER, BUFFER + 1)],
    "where": [(X > 0, X, 2 * X), (np.array([[True], [False]]), draw(2, 5), draw(2, 5, seed=1))],
    "rotate": [
        (draw(B, 3, T, D), draw(*rows, half, seed=1), draw(*rows, half, seed=2))
        for B, T, rows in ((1, 1, (1, 1, 1)), (2, 1, (1, 1, 1)), (2, 4, (1, 1, 4)), (2, 4, (2, 1, 4)))
        for D, half in ((8, 4), (8, 2))
    ],
    "attention": [
        *((*qkv(2, 4, 4, T, S), 0.3, mask) for T, S in ((5, 5), (3, 7), (1, 7), (1, 1)) for mask in (None, "causal")),
        *((*qkv(2, 6, 1, T, S), 1.7, mask) for T, S in ((5, 5), (2, 7), (1, 7)) for mask in (None, "causal")),
        *((*qkv(2, 6, 2, T, S), 0.7, mask) for T, S in ((5, 5), (2, 7), (1, 7)) for mask in (None, "causal")),
        *((*qkv(2, 6, G, T, 7), 0.3, visible(B, 1, T, 7)) for G in (2, 6) for T in (1, 3, 7) for B in (1, 2)),
        (*qkv(3, 2, 2, 4, 6), 40.0, "causal"),
    ],
    "write": [
        ([BUFFER, 2 * BUFFER], [draw(2, 3, T, 5, seed=1), draw(2, 3, T, 5, seed=2)], at)
        for T, at in ((1, 0), (1, 3), (1, 6), (3, 0), (3, 2), (3, 4), (7, 0))
    ],
    "best": [
        (draw(2, 3, 37),),
        (draw(37),),
        (np.zeros((2, 5), np.float32),),
        (COUNTING,),
        (LAST,),
        (-COUNTING[..., ::-1].copy(),),
        (np.array([[-np.inf, -3, -np.inf, -3]], np.float32),),
    ],
    "logsumexp": [
        (draw(2, 3, 37),),
        (draw(37),),
        (np.array([[1000, 1001, -1000], [-np.inf, -3, -np.inf]], np.float32),),
    ],
}  # fmt: skip


def convert(x: Any, change: Callable[[Numbers], Any]) -> Any:
    """The arrays among an operation's arguments, changed."""
    if isinstance(x, np.ndarray):
        return change(x)
    if isinstance(x, list) and isinstance(x[0], np.ndarray):
        return [change(part) for part in x]
    return x


def call(ops: Backend, name: str, args: tuple[Any, ...]) -> tuple[Any, Any]:
    """What the backend says, and what NumPy does with the numbers as the backend's dtype holds them."""

    def exact(x: Numbers) -> Numbers:
        return ops.numpy(ops.asarray(x)).astype(np.float64) if x.dtype == np.float32 else x

    got = getattr(ops, name)(*(convert(arg, ops.asarray) for arg in args))
    return got, REFERENCE[name](*(convert(arg, exact) for arg in args))


def dtype_of(x: Any) -> str:
    return str(x.dtype).rsplit(".", 1)[-1]


def compare(ops: Backend, got: Any, want: Any, dtype: str | None = None) -> None:
    """The same shape, the backend's dtype if no other is given, and as near as that allows."""
    if isinstance(want, list):
        assert len(got) == len(want)
        for one, other in zip(got, want, strict=True):
            compare(ops, one, other, dtype)
        return
    numbers = ops.numpy(got)
    assert numbers.shape == want.shape
    if want.dtype.kind == "f":
        assert dtype_of(got) == (dtype or ops.dtype)
        assert np.abs(numbers - want).max(initial=0) <= TOLERANCE[ops.dtype] * max(
            1, np.abs(want).max(initial=0)
        )
    else:
        assert numbers.dtype.kind in "iu"
        assert np.array_equal(numbers, want)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        pytest.param(name, args, id=f"{name}{i}")
        for name in CASES
        for i, args in enumerate(CASES[name])
    ],
)
def test_float32(ops: Backend, name: str, args: tuple[Any, ...]) -> None:
    compare(ops, *call(ops, name, args))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_half(backend: str, device: str, dtype: str, name: str) -> None:
    ops = get_backend(backend, device, dtype)
    for args in CASES[name]:
        compare(ops, *call(ops, name, args), "float32" if name in IN_FLOAT32 else None)


def test_every_operation_is_tested() -> None:
    others = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert set(CASES) == set(REFERENCE)
    assert set(CASES).isdisjoint(others)
    assert set(PROTOCOL) - set(CASES) - {"one_text", "prepare"} <= others


def test_a_copy_keeps_what_assign_overwrites(ops: Backend) -> None:
    buffer = ops.asarray(X)
    copy = ops.copy(buffer)
    ops.assign(buffer, ops.asarray(2 * X))
    assert np.array_equal(ops.numpy(copy), X)


def test_replay(ops: Backend) -> None:
    """What a backend records is tested beside it; here, that an empty state has nothing to repeat."""
    state, ids = SimpleNamespace(length=0), np.zeros((1, 1), np.int64)
    assert (
        ops.replay(ids, state, (-1,), lambda *_: pytest.fail("there is nothing to record")) is None
    )


def test_one_text_and_prepare(ops: Backend) -> None:
    """That they do what they say is tested with what needs it; here, that each backend has them and lets errors out."""
    ops.prepare()
    with ops.one_text(), ops.one_text():
        assert ops.numpy(ops.asarray(X)).any()
    with pytest.raises(KeyError), ops.one_text():
        raise KeyError


def test_view(ops: Backend) -> None:
    """The lowest byte of a word comes first."""
    words = ops.quantize(ops.asarray(draw(2, 32)), 8, 32).packed
    found = ops.view(words, "uint8")
    assert np.array_equal(ops.numpy(found), ops.numpy(words).view(np.uint8))
    assert dtype_of(found) == "uint8"
    assert np.array_equal(ops.numpy(ops.view(found, "uint32")), ops.numpy(words))


def test_fetch(ops: Backend) -> None:
    """As `numpy`, and what is asked for since changes nothing."""
    x, ids = ops.asarray(X), ops.asarray(np.arange(3))
    short = ops.astype(x, "bfloat16")
    wait = ops.fetch(x, ids, short)
    _ = x * 2
    for got, want in zip(wait(), (x, ids, short), strict=True):
        assert got.dtype == ops.numpy(want).dtype
        assert np.array_equal(got, ops.numpy(want))


@pytest.mark.parametrize("dtype", DTYPES)
def test_top_k(backend: str, device: str, dtype: str) -> None:
    ops = get_backend(backend, device, dtype)
    x = draw(3, 200)
    for k in (1, 5, 40, 100, 199):
        values, ids = (ops.numpy(y) for y in ops.top_k(ops.asarray(x), k))
        exact = ops.numpy(ops.asarray(x))
        for i in range(3):
            assert len(set(ids[i].tolist())) == k
            assert np.array_equal(values[i], exact[i, ids[i]], equal_nan=True)
            assert np.array_equal(np.sort(values[i]), np.sort(exact[i])[-k:])


def test_top_k_of_ties_and_of_nothing(ops: Backend) -> None:
    """Each index once, whatever ties: a vocabulary that is partly masked, and one that is flat."""
    masked = np.full((2, 203), -np.inf, np.float32)
    masked[:, [3, 77, 202]] = [1, 5, 2]
    for x in (masked, np.zeros((2, 203), np.float32)):
        values, ids = (ops.numpy(y) for y in ops.top_k(ops.asarray(x), 10))
        for i in range(2):
            assert len(set(ids[i].tolist())) == 10
            assert np.array_equal(values[i], x[i, ids[i]])
            assert np.array_equal(np.sort(values[i]), np.sort(x[i])[-10:])


def test_best_tells_of_nan(ops: Backend) -> None:
    """Wherever in the row it stands, and of that row alone."""
    x = draw(4, 50)
    for row, place in ((0, 0), (1, 30), (2, 49)):
        x[row, place] = np.nan
    values, _ = ops.best(ops.asarray(x))
    assert np.isnan(ops.numpy(values)).tolist() == [True, True, True, False]


def test_argsort(ops: Backend) -> None:
    x = draw(3, 40)
    exact = ops.numpy(ops.asarray(x))
    found = np.take_along_axis(exact, ops.numpy(ops.argsort(ops.asarray(x))), axis=-1)
    assert np.array_equal(found, np.sort(exact, axis=-1))  # ties in 16 bits may come in any order


def test_cumsum(ops: Backend) -> None:
    """Exact up to 2**30, where floats would have been rounded."""
    x = np.full((2, 40), 2**30 // 40, np.int64)
    x[1] = np.arange(40)
    assert np.array_equal(ops.numpy(ops.cumsum(ops.asarray(x))), np.cumsum(x, axis=-1))


def test_gather(ops: Backend) -> None:
    x, indices = draw(2, 9), np.array([[8, 0, 3], [1, 1, 7]])
    found = ops.gather(ops.asarray(x), ops.asarray(indices))
    assert np.array_equal(ops.numpy(found), np.take_along_axis(x, indices, axis=-1))


def test_release(ops: Backend) -> None:
    """What is still held stays as it is."""
    x = ops.asarray(X) * 2
    ops.release()
    assert np.array_equal(ops.numpy(x), ops.numpy(ops.asarray(X)) * 2)


def test_protocol(ops: Backend) -> None:
    """The backend has the protocol's methods, with its parameters, and no others."""
    functions = inspect.getmembers(type(ops), inspect.isfunction)
    public = {name: f for name, f in functions if not name.startswith("_")}
    assert {name: str(inspect.signature(f)) for name, f in public.items()} == {
        name: str(inspect.signature(f)) for name, f in PROTOCOL.items()
    }
    assert all(hasattr(ops, name) for name in inspect.get_annotations(Backend))
    assert ops.name in BACKENDS
    assert ops.device in ("cpu", "gpu") or ops.device.startswith(("cuda", "mps"))
    assert ops.accelerated == (not ops.device.startswith("cpu"))


# -- in and out -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "x",
    [X, X[::-1, :, ::-1], X.T, X.astype(np.float64), np.float32(3), [[1.5, 2.0]], np.arange(6)[::-1], [[1, 2]], 7,
     np.arange(6, dtype=np.uint16), np.array([0, 2**31 - 1, -(2**31)]), X > 0, (X > 0).T, (X > 0)[:, ::-1], np.True_,
     np.broadcast_to(np.array([True, False]), (3, 2)), np.empty((2, 0, 3), np.float32)],
)  # fmt: skip
def test_asarray(ops: Backend, x: Any) -> None:
    x = np.asarray(x)
    got = ops.asarray(x)
    assert tuple(got.shape) == x.shape
    assert np.array_equal(ops.numpy(got), x)
    want = {
        "f": ("float32",),
        "i": ("int32", "int64"),
        "u": ("int32", "int64"),
        "b": ("bool", "bool_"),
    }
    assert dtype_of(got) in want[x.dtype.kind]


def test_asarray_takes_a_copy(ops: Backend) -> None:
    for x in (np.zeros(3, np.float32), np.zeros(3, np.int64), np.zeros(3, bool)):
        got = ops.asarray(x)
        x[0] = 1
        assert not ops.numpy(got).any()
        x.flags.writeable = False  # as memory that is mapped from a file
        assert np.array_equal(ops.numpy(ops.asarray(x)), x)


@pytest.mark.parametrize(("dtype", "bits"), [("bfloat16", 8), ("float16", 11)])
def test_numpy(backend: str, device: str, dtype: str, bits: int) -> None:
    """Halves are rounded to the nearest, ties to even, and widened without loss."""
    ops = get_backend(backend, device, dtype)
    step = 2.0 ** (1 - bits)  # between the numbers from 1 to 2
    x = np.array(
        [
            1,
            1 + step,
            1 + 0.4 * step,
            1 + 0.6 * step,
            1 + 0.5 * step,
            1 + 1.5 * step,
            -1 - 0.6 * step,
            0.1,
        ]
    )
    want = np.array(
        [
            1,
            1 + step,
            1,
            1 + step,
            1,
            1 + 2 * step,
            -1 - step,
            np.round(0.1 * 16 / step) * step / 16,
        ]
    )
    got = ops.asarray(x)
    assert dtype_of(got) == dtype
    assert ops.numpy(got).dtype == np.float32
    assert np.array_equal(ops.numpy(got), want)
    assert np.array_equal(
        ops.numpy(ops.asarray(np.array([3, 2**20 + 1]))), [3, 2**20 + 1]
    )  # ids are not rounded
    assert ops.numpy(ops.asarray(x > 0)).dtype == bool


@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros(backend: str, device: str, dtype: str) -> None:
    ops = get_backend(backend, device, dtype)
    for shape in ((2, 3, 0), [4, 1, 2]):
        compare(ops, ops.zeros(shape), np.zeros(shape))


@pytest.mark.parametrize("stored", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_astype(backend: str, device: str, stored: str, dtype: str) -> None:
    x = get_backend(backend, device, stored).asarray(X)
    ops = get_backend(backend, device, dtype)
    compare(ops, ops.astype(x, dtype), X.astype(np.float64))


def test_layout(ops: Backend) -> None:
    """`contiguous` lays a transposed weight out anew."""
    turned = ops.contiguous(ops.permute(ops.asarray(X), (2, 0, 1)))
    ops.sync(turned)
    assert turned.is_contiguous() if ops.name == "torch" else memoryview(turned).c_contiguous


def header(path: Path) -> tuple[dict[str, Any], bytes]:
    """A safetensors file's header and what follows it, read by hand: NumPy has no bfloat16."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.partial"])
def test_save(ops: Backend, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    rows = ops.asarray(draw(6, 5))
    arrays = {
        "plain": ops.asarray(X),
        "turned": ops.permute(ops.asarray(X), (2, 0, 1)),
        "part": rows[:2],
        "other.part": rows[2:, 1:],
        "short": ops.asarray(np.zeros((2, 0), np.float32)),
        "half": ops.astype(ops.asarray([[1.0, -2.5]]), "float16"),
        "brain": ops.astype(ops.asarray([1.0, -2.5, 3e38]), "bfloat16"),
        "ids": ops.asarray([3, 1, 2]),
    }
    ops.save(path, arrays, {"format": "pt", "chat": "ü"})
    assert [file.name for file in tmp_path.iterdir()] == [name]
    with safe_open(path, framework="np") as file:
        assert file.metadata() == {"format": "pt", "chat": "ü"}
        assert set(file.keys()) == set(arrays)
        for key in set(arrays) - {"brain"}:
            assert np.array_equal(file.get_tensor(key), ops.numpy(arrays[key]))
        assert file.get_tensor("half").dtype == np.float16
    entries, data = header(path)
    assert entries["brain"]["dtype"] == "BF16"
    start, end = entries["brain"]["data_offsets"]
    assert np.frombuffer(data[start:end], "<u2").tolist() == [0x3F80, 0xC020, 0x7F62]
    back = ops.load(path)
    assert {key: dtype_of(back[key]) for key in arrays} == {
        key: dtype_of(x) for key, x in arrays.items()
    }
    assert all(np.array_equal(ops.numpy(back[key]), ops.numpy(x)) for key, x in arrays.items())


def test_load(backend: str, device: str, tmp_path: Path) -> None:
    """Tensors have the dtype they were stored in, whatever the backend computes in."""
    ops = get_backend(backend, device, "bfloat16")
    stored = {"a": X, "b.half": draw(3).astype(np.float16), "b.ids": np.arange(3)}
    save_file(stored, tmp_path / "some.file", metadata={"format": "pt"})
    loaded = ops.load(tmp_path / "some.file")
    assert len(loaded) == 3
    assert set(loaded) == set(stored)
    assert "c" not in loaded
    for name, x in stored.items():
        assert dtype_of(loaded[name]) == str(x.dtype)
        assert np.array_equal(ops.numpy(loaded[name]), x)
    with pytest.raises(KeyError):
        loaded["c"]


def test_recurrence(ops: Backend) -> None:
    """Generation goes step by step; what training does is in test_training.py."""
    assert ops.recurrence("lstm", {}, None, ()) is None


# -- state ------------------------------------------------------------------------------------------------------------
def test_writes_in_turn(ops: Backend) -> None:
    """Tokens of several passes lie side by side, and a second pass over the same place replaces the first."""
    want = np.zeros((2, 3, 9, 5), np.float32)
    buffer = ops.zeros(want.shape)
    for seed, (T, at) in enumerate([(4, 0), (1, 4), (1, 5), (3, 6), (2, 3), (1, 8)]):
        new = draw(2, 3, T, 5, seed=seed)
        (buffer,) = ops.write([buffer], [ops.asarray(new)], at)
        want[:, :, at : at + T] = new
        assert np.array_equal(ops.numpy(buffer), want)


def test_taken_rows_are_a_copy(ops: Backend) -> None:
    buffer = ops.asarray(BUFFER)
    copy = ops.take(buffer, (0, 1), axis=0)
    ops.write([buffer], [ops.asarray(draw(2, 3, 2, 5))], 0)
    assert np.array_equal(ops.numpy(copy), BUFFER)


# -- running ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", DTYPES)
def test_all_finite(backend: str, device: str, dtype: str) -> None:
    ops = get_backend(backend, device, dtype)
    largest = {"float32": 3e38, "bfloat16": 3e38, "float16": 65504}[
        dtype
    ]  # their sum is none of the dtype
    rows = {
        "plain": (draw(3, 5), True),
        "large": (np.full((40, 33), largest), True),
        "nan": (np.array([[1.0, 2], [3, np.nan]]), False),
        "inf": (np.array([np.inf, 1]), False),
        "minus": (np.array([[0, -np.inf]]), False),
        "both": (np.array([np.inf, -np.inf, 2]), False),
        "last": (np.append(np.full(999, largest), np.nan), False),
        "one": (np.array(2.0), True),
        "zero": (np.zeros((2, 3)), True),
    }
    arrays = {name: ops.asarray(x) for name, (x, _) in rows.items()}
    got = ops.all_finite(list(arrays.values()))
    assert all(type(flag) is bool for flag in got)
    assert dict(zip(rows, got, strict=True)) == {name: finite for name, (_, finite) in rows.items()}
    for name, (_, finite) in rows.items():
        assert ops.all_finite([arrays[name]]) == [finite]


def test_sync(ops: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    if ops.name == "torch":
        waits: list[None] = []
        monkeypatch.setattr("torch.cuda.synchronize", lambda device: waits.append(None))
        ops.sync({"a": [SimpleNamespace(is_cuda=False)]})
        assert not waits
        ops.sync(SimpleNamespace(is_cuda=False), {"a": [{"b": (SimpleNamespace(is_cuda=True),)}]})
        assert waits
        return
    import mlx.core as mx

    before = mx.get_active_memory()
    trees = [mx.ones(2**16) + i for i in range(3)]
    assert mx.get_active_memory() - before < 2**18  # nothing has been computed yet
    ops.sync(trees[0], {"a": [{"b": (trees[1],)}, trees[2]]})
    assert mx.get_active_memory() - before >= 3 * 2**18


def test_total_memory(ops: Backend) -> None:
    assert 2**28 < ops.total_memory() < 2**45
    message = r"^this needs [\d,]+\.\d GiB at once, and the device has \d+\.\d GiB: ask for"
    with pytest.raises(BackendError, match=message):
        ops.zeros((2**40, 2**10))


def test_memory(ops: Backend) -> None:
    x = ops.zeros((8, 2**20)) + 1
    ops.sync(x)
    assert isinstance(ops.memory(), int)
    assert 2**25 <= ops.memory() < 2**40


def test_threads(ops: Backend) -> None:
    assert ops.threads() in (None, 1)  # torch has one in all tests


def test_device_name(ops: Backend) -> None:
    assert (ops.device_name() is None) == (not ops.accelerated)


# -- quantized --------------------------------------------------------------------------------------------------------
def codes_of(packed: Numbers, bits: int) -> Numbers:
    """(out, in * bits / 32) uint32 -> (out, in), the first in the lowest bits."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    return ((packed[..., None] >> shifts) & np.uint32(2**bits - 1)).reshape(len(packed), -1)


def quantized(w: Numbers, bits: int, group: int) -> tuple[Numbers, Numbers, Numbers]:
    """Codes, scales and biases by MLX's rule in float32."""
    x, most = w.reshape(len(w), -1, group), np.float32(2**bits - 1)
    low, high = x.min(-1, keepdims=True), x.max(-1, keepdims=True)
    spread = np.maximum((high - low) / most, np.float32(1e-7))
    edge, scale = (
        np.where(abs(low) > abs(high), *pair) for pair in ((low, high), (spread, -spread))
    )
    zero = np.rint(edge / scale)
    scale = np.where(zero == 0, scale, edge / np.where(zero == 0, 1, zero))
    bias = np.where(zero == 0, np.float32(0), edge)
    codes = np.clip(np.rint((x - bias) / scale), 0, most).reshape(w.shape)
    return codes.astype(np.uint32), scale[..., 0], bias[..., 0]


@pytest.mark.parametrize(
    ("bits", "group"), [(bits, group) for bits in (4, 8) for group in (32, 64, 128)]
)
def test_quantize(ops: Backend, bits: int, group: int) -> None:
    numbers = np.random.default_rng(bits).standard_normal((5, 256)).astype(np.float32)
    numbers[1], numbers[2, :128], numbers[3] = 0, 0.75, abs(numbers[3])
    for w in (numbers, 1e-3 * numbers, 1e-9 * numbers, -100 * numbers):
        got = ops.quantize(ops.asarray(w), bits, group)
        packed, scales, biases = map(ops.numpy, got.arrays)
        assert (packed.shape, packed.dtype, got.bits, got.group) == (
            (5, 256 * bits // 32),
            np.uint32,
            bits,
            group,
        )
        wanted = quantized(w, bits, group)
        for one, other in zip((codes_of(packed, bits), scales, biases), wanted, strict=True):
            assert np.array_equal(one, other)
        assert dtype_of(got.scales) == dtype_of(got.biases) == "float32"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("bits", "group"), [(4, 32), (4, 64), (8, 64)])
def test_dequantize(backend: str, device: str, dtype: str, bits: int, group: int) -> None:
    ops = get_backend(backend, device, dtype)
    held = ops.quantize(ops.asarray(draw(6, 128)), bits, group)
    packed, scales, biases = map(ops.numpy, held.arrays)
    wide = [np.repeat(x.astype(np.float64), group, axis=1) for x in (scales, biases)]
    compare(ops, ops.dequantize(held), codes_of(packed, bits) * wide[0] + wide[1])
    step = np.abs(wide[0]).max() * (1 if dtype == "float32" else 2)
    assert np.abs(ops.numpy(ops.dequantize(held)) - draw(6, 128)).max() <= step
