"""The kernels of a step of one token: the same numbers as torch's own operations, on whatever they take."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigen.backends import get_backend
from minigen.errors import UsageError
from minigen.model import load

pytest.importorskip("numba", reason="numba is not installed")
pytest.importorskip("torch", reason="torch is not installed")

BOUND = {"float32": 2e-6, "bfloat16": 1.2e-2}  # of the largest number: torch rounds where the kernels do not


def draw(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


@pytest.fixture(params=["float32", "bfloat16"])
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """The backend with its kernels started, and without."""
    fast = get_backend("torch", "cpu", request.param)
    monkeypatch.setenv("MINIGEN_KERNELS", "0")
    plain = get_backend("torch", "cpu", request.param)
    fast.one_row.started = fast.one_row.kernels is not None
    assert fast.one_row.started
    assert not plain.one_row.possible
    return fast, plain


def same(pair: tuple[Any, Any], name: str, *args: Any) -> None:
    """Takes arrays as they are; NumPy's become the backend's."""
    fast, _ = pair
    given = [fast.asarray(x) if isinstance(x, np.ndarray) else x for x in args]
    assert getattr(fast.one_row, name)(*given) is not None
    got, want = (ops.numpy(getattr(ops, name)(*given)) for ops in pair)
    assert got.shape == want.shape
    assert np.array_equal(np.isnan(got), np.isnan(want))
    finite = np.isfinite(want)
    assert np.array_equal(got[~finite & ~np.isnan(want)], want[~finite & ~np.isnan(want)])
    assert np.abs(got[finite] - want[finite]).max(initial=0) <= BOUND[fast.dtype] * max(
        1, np.abs(want[finite]).max(initial=0)
    )


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (3, 5), (4, 64), (9, 1), (31, 257), (301, 300), (700, 130)])
def test_linear(pair: tuple[Any, Any], rows: int, cols: int) -> None:
    for bias in (None, draw(rows, seed=1)):
        same(pair, "linear", draw(1, 1, cols), draw(rows, cols), bias)
    same(pair, "linear", draw(cols), draw(rows, cols), None)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_number_is_hidden(pair: tuple[Any, Any], value: float) -> None:
    x, weight = draw(1, 1, 40), np.abs(draw(30, 40))
    x[..., 7] = value
    same(pair, "linear", x, weight, None)
    same(pair, "rms_norm", x, weight[0], 1e-5)
    q, k = draw(1, 2, 1, 8), draw(1, 2, 5, 8)
    q[0, 0, 0, 3] = np.nan  # torch's own attention makes 0 of it
    fast, _ = pair
    found = fast.numpy(fast.one_row.attention(*map(fast.asarray, (q, k, k)), 0.3, None))
    assert np.isnan(found).all(-1).ravel().tolist() == [True, False]


def test_norms_and_rotations(pair: tuple[Any, Any]) -> None:
    for shape in ((1, 1, 576), (1, 3, 64), (2, 2, 1, 5)):
        same(pair, "rms_norm", 3 * draw(*shape), draw(shape[-1]), 1e-5)
    for D, half in ((64, 32), (10, 3)):
        same(pair, "rotate", draw(1, 3, 1, D), draw(1, 1, 1, half), draw(1, 1, 1, half, seed=1))


@pytest.mark.parametrize(
    ("B", "H", "G", "S", "D"), [(1, 4, 4, 1, 8), (1, 6, 2, 9, 5), (3, 6, 1, 70, 64), (2, 12, 4, 300, 64)]
)
def test_attention(pair: tuple[Any, Any], B: int, H: int, G: int, S: int, D: int) -> None:
    fast, _ = pair
    cache = [fast.asarray(draw(B, G, S + 9, D, seed=i)) for i in (1, 2)]
    for first in (0, S // 2):  # the keys of a longer buffer, and of a sliding window
        k, v = (x[:, :, first : first + S] for x in cache)
        for mask in (None, "causal"):
            same(pair, "attention", draw(B, H, 1, D), k, v, 0.3, mask)


def test_what_the_kernels_leave_to_torch(pair: tuple[Any, Any]) -> None:
    fast, _ = pair
    a = fast.asarray
    assert fast.one_row.linear(a(draw(1, 2, 5)), a(draw(4, 5)), None) is None  # two rows
    assert fast.one_row.linear(a(draw(1, 1, 5)), a(draw(5, 4)).T, None) is None
    assert fast.one_row.rotate(a(draw(2, 3, 1, 8)), a(draw(1, 1, 1, 4)), a(draw(1, 1, 1, 4))) is None
    q, k = a(draw(1, 2, 1, 8)), a(draw(1, 2, 5, 8))
    assert fast.one_row.attention(q, k, k, 0.3, a(draw(1, 1, 1, 5)) > 0) is None
    assert fast.one_row.attention(a(draw(1, 2, 2, 8)), k, k, 0.3, None) is None
    half = get_backend("torch", "cpu", "float16")
    half.one_row.started = half.one_row.kernels is not None  # type: ignore[attr-defined]
    assert half.one_row.linear(half.asarray(draw(1, 1, 5)), half.asarray(draw(4, 5)), None) is None  # type: ignore[attr-defined]


def test_small_models_start_no_numba() -> None:
    ops: Any = get_backend("torch", "cpu", "float32")
    ops.linear(ops.asarray(draw(1, 1, 100)), ops.asarray(draw(100, 100)))
    assert ops.one_row.possible
    assert not ops.one_row.started


def test_torch_keeps_its_threads() -> None:
    """In a process of its own, where numba starts: it sets the number of the OpenMP library that both may use."""
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from minigen.backends import get_backend\n"
        "ops = get_backend('torch', 'cpu', 'float32')\n"
        "ops.linear(ops.zeros((1, 1, 1024)), ops.zeros((1024, 1024)))\n"
        "print(ops.one_row.started, torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True 1\n"


def test_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGEN_KERNELS", "yes")
    with pytest.raises(UsageError, match="MINIGEN_KERNELS is 'yes': set it to 1"):
        get_backend("torch", "cpu")


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_same_text(name: str, tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole models, one prompt and several of unequal lengths: the same tokens with the kernels and without."""
    fast: Any = load(tiny(name), "torch", "cpu", "float32")
    monkeypatch.setenv("MINIGEN_KERNELS", "0")
    plain = load(tiny(name), "torch", "cpu", "float32")
    fast.runner.ops.one_row.started = fast.runner.ops.one_row.kernels is not None
    prompts = [[5, 77, 3, 9], [200, 1], list(range(30, 50))]
    for settings in ({"temperature": 0.0}, {"seed": 7}):
        for batch in (prompts[:1], prompts):
            told = [model.generate_ids(batch, max_tokens=24, **settings) for model in (fast, plain)]
            assert told[0] == told[1]


def test_numba_that_does_not_work(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    ops: Any = get_backend("torch", "cpu", "float32")
    monkeypatch.setitem(sys.modules, "minigen.backends.cpu_kernels", None)
    monkeypatch.delattr("minigen.backends.cpu_kernels", raising=False)
    large = ops.zeros((1024, 1024))
    for _ in range(2):
        assert not ops.linear(ops.zeros((1, 1, 1024)), large).any()
    assert [record.message.partition(" (")[0] for record in caplog.records] == ["numba does not work here"]
    assert not ops.one_row.started
