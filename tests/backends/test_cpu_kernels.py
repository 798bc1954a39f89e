"""The kernels for torch on a CPU: the same numbers as torch's own operations, on whatever they take."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minigen.backends import get_backend
from minigen.errors import UsageError

pytest.importorskip("numba", reason="numba is not installed")
pytest.importorskip("torch", reason="torch is not installed")
pytestmark = pytest.mark.usefixtures("compiled_kernels")

BOUND = {
    "float32": 2e-6,
    "bfloat16": 1.2e-2,
}  # of the largest number: torch rounds where the kernels do not


def draw(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


@pytest.fixture(params=["float32", "bfloat16"])
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """The backend with its kernels started, and without."""
    return started(request.param), plain(request.param, monkeypatch)


def started(dtype: str) -> Any:
    ops: Any = get_backend("torch", "cpu", dtype)
    ops.kernels.started = ops.kernels.compiled is not None
    assert ops.kernels.started
    return ops


def plain(dtype: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MINIGEN_KERNELS", "0")
    ops: Any = get_backend("torch", "cpu", dtype)
    assert not ops.kernels.possible
    return ops


def same(pair: tuple[Any, Any], name: str, *args: Any, taken: bool = True) -> None:
    """Takes arrays as they are; NumPy's become the backend's. `taken`: a kernel does it."""
    fast, _ = pair
    given = [fast.asarray(x) if isinstance(x, np.ndarray) else x for x in args]
    if hasattr(fast.kernels, name):
        assert (getattr(fast.kernels, name)(*given) is not None) == taken
    got, want = (ops.numpy(getattr(ops, name)(*given)) for ops in pair)
    assert got.shape == want.shape
    assert np.array_equal(np.isnan(got), np.isnan(want))
    finite = np.isfinite(want)
    assert np.array_equal(got[~finite & ~np.isnan(want)], want[~finite & ~np.isnan(want)])
    assert np.abs(got[finite] - want[finite]).max(initial=0) <= BOUND[fast.dtype] * max(
        1, np.abs(want[finite]).max(initial=0)
    )


# an odd size for each way a matrix can end: less than a vector, a tile, a panel, a part of the columns
@pytest.mark.parametrize(
    ("rows", "cols"),
    [(1, 1), (3, 5), (4, 64), (9, 1), (31, 257), (301, 300), (700, 130), (70, 1100), (5, 2064)],
)
def test_linear(pair: tuple[Any, Any], rows: int, cols: int) -> None:
    for bias in (None, draw(rows, seed=1)):
        same(pair, "linear", draw(1, 1, cols), draw(rows, cols), bias)
        for n in (2, 5, 13, 23):
            same(
                pair,
                "linear",
                draw(1, n, cols),
                draw(rows, cols),
                bias,
                taken=pair[0].dtype == "float32",
            )
    same(pair, "linear", draw(cols), draw(rows, cols), None)
    turned = pair[0].asarray(draw(cols, 3)).T  # whose numbers are not side by side
    same(pair, "linear", turned, draw(rows, cols), None, taken=pair[0].dtype == "float32")
    same(pair, "linear", turned[:1], draw(rows, cols), None)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(
    ("rows", "cols", "group"),
    [
        (1, 32, 32),
        (31, 256, 64),
        (70, 1216, 64),
        (5, 2176, 128),
        (33, 1040, 16),
        (9, 288, 96),
        (3, 96, 48),
    ],
)
def test_quantized_linear(
    pair: tuple[Any, Any], rows: int, cols: int, group: int, bits: int
) -> None:
    weight = pair[0].quantize(pair[0].asarray(draw(rows, cols)), bits, group)
    taken = group % 32 == 0 or (bits, group) == (8, 16)
    for bias in (None, draw(rows, seed=1)):
        for n in (1, 2, 7, 23):
            same(pair, "linear", draw(1, n, cols), weight, bias, taken=taken)
        same(pair, "linear", draw(1, 65, cols), weight, bias, taken=taken)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_number_is_hidden(pair: tuple[Any, Any], value: float) -> None:
    x, weight = draw(1, 3, 40), np.abs(draw(30, 40))
    x[:, 0, 7] = value
    same(pair, "linear", x[:, :1], weight, None)
    same(pair, "linear", x, weight, None, taken=pair[0].dtype == "float32")
    for name in ("silu", "gelu"):
        same(pair, name, np.where(x == np.inf, -1000, x), *[True] * (name == "gelu"))
    same(pair, "rms_norm", x, weight[0], 1e-5)
    same(pair, "layer_norm", x, weight[0], weight[1], 1e-5)
    q, k = draw(1, 2, 5, 16), draw(1, 2, 5, 16)
    q[0, 0, 0, 3] = np.nan  # torch's own attention makes 0 of it
    fast, _ = pair
    found = fast.numpy(fast.kernels.attention(*map(fast.asarray, (q, k, k)), 0.3, "causal"))
    assert np.isnan(found).any(-1)[0].tolist() == [[True] + [False] * 4, [False] * 5]


def test_norms_rotations_and_activations(pair: tuple[Any, Any]) -> None:
    for shape in ((1, 1, 576), (1, 30, 64), (2, 2, 1, 5)):
        same(pair, "rms_norm", 3 * draw(*shape), draw(shape[-1]), 1e-5)
        for bias in (None, draw(shape[-1], seed=1)):
            same(pair, "layer_norm", 3 + draw(*shape), draw(shape[-1]), bias, 1e-5)
        for approximate in (True, False):
            same(pair, "gelu", 5 * draw(*shape), approximate)
        same(pair, "silu", 20 * draw(*shape))
    a = pair[0].asarray(draw(1, 7, 40))
    same(pair, "silu", a[..., :19])
    for D, half in ((64, 32), (10, 3)):
        for T in (1, 9):
            x, angles = pair[0].asarray(draw(1, T, 3, D)).permute(0, 2, 1, 3), draw(1, 1, T, half)
            same(pair, "rotate", x, angles, angles + 1, taken=pair[0].dtype == "float32")


@pytest.mark.parametrize(
    ("B", "H", "G", "T", "S", "D"),
    [
        (1, 4, 4, 2, 2, 16),
        (2, 6, 2, 7, 9, 48),
        (3, 6, 1, 70, 70, 64),
        (1, 4, 4, 30, 300, 80),
        (1, 2, 2, 5, 64, 128),
    ],
)
def test_attention(pair: tuple[Any, Any], B: int, H: int, G: int, T: int, S: int, D: int) -> None:
    fast, _ = pair
    k, v = (
        fast.asarray(draw(B, G, S + 9, D, seed=i))[:, :, :S] for i in (1, 2)
    )  # of a longer buffer
    same(pair, "attention", fast.asarray(draw(B, T, H, D)).permute(0, 2, 1, 3), k, v, 0.3, "causal")


def test_what_the_kernels_leave_to_torch(pair: tuple[Any, Any]) -> None:
    fast, _ = pair
    a, kernels = fast.asarray, fast.kernels
    assert kernels.linear(a(draw(1, 1, 5)), a(draw(5, 4)).T, None) is None
    assert kernels.rotate(a(draw(2, 3, 1, 8)), a(draw(1, 1, 1, 4)), a(draw(1, 1, 1, 4))) is None
    q, k = a(draw(1, 2, 3, 16)), a(draw(1, 2, 5, 16))
    assert kernels.attention(q, k, k, 0.3, a(draw(1, 1, 3, 5)) > 0) is None
    assert kernels.attention(q, k, k, 0.3, None) is None
    assert kernels.attention(q[..., :8], k[..., :8], k[..., :8], 0.3, "causal") is None
    half = started("float16")
    assert half.kernels.linear(half.asarray(draw(1, 1, 5)), half.asarray(draw(4, 5)), None) is None
    assert half.kernels.activate("SILU", half.asarray(draw(1, 1, 5))) is None


def test_shapes_that_a_kernel_would_read_beyond(pair: tuple[Any, Any]) -> None:
    """A kernel knows an address and trusts sizes: what has others is left to torch, which broadcasts or refuses it."""
    fast, _ = pair
    if fast.dtype != "float32":
        pytest.skip("in bfloat16 most of these have no kernel")
    a, kernels = fast.asarray, fast.kernels
    x, angles = a(draw(1, 2, 9, 8)), a(draw(1, 1, 9, 4))
    same(pair, "rotate", x, angles, angles)
    for shape in ((1, 1, 1, 4), (1, 1, 9, 1)):
        same(pair, "rotate", x, a(draw(*shape)), a(draw(*shape)), taken=shape[3] == 1)
    assert kernels.rotate(x, angles, a(draw(1, 1, 1, 4))) is None
    assert kernels.rotate(x, angles, angles.double()) is None
    assert kernels.rotate(x, a(draw(1, 1, 9, 5)), a(draw(1, 1, 9, 5))) is None
    line, gain = a(draw(1, 3, 8)), a(draw(8))
    assert kernels.norm("RMS_NORM", line, gain[:1], None, 1e-5) is None
    assert kernels.norm("LAYER_NORM", line, gain, gain[:4], 1e-5) is None
    assert kernels.linear(line, a(draw(5, 8)), a(draw(1))) is None
    assert kernels.linear(line, a(draw(5, 4)), None) is None
    q, k = a(draw(1, 4, 3, 16)), a(draw(1, 2, 5, 16))
    assert kernels.attention(q, k, k, 0.3, "causal") is not None
    for keys, values in (
        (k, k[:, :1]),
        (k[:, :, :2], k[:, :, :2]),
        (a(draw(1, 3, 5, 16)), a(draw(1, 3, 5, 16))),
    ):
        assert kernels.attention(q, keys, values, 0.3, "causal") is None
    assert kernels.attention(a(draw(2, 4, 3, 16)), k, k, 0.3, "causal") is None


def test_memory_that_is_known_by_address_is_held() -> None:
    """numba frees an array after its last use: one that is used by its address alone must be held to the end. glibc
    fills what is freed, where it is told to: a counter or sums in there give other numbers, or end the process."""
    code = (
        "import numpy as np\n"
        "from minigen.backends import get_backend\n"
        "ops = get_backend('torch', 'cpu', 'float32')\n"
        "ops.kernels.start()\n"
        "rng = np.random.default_rng(0)\n"
        "for rows, cols, n in ((700, 1216, 1), (700, 1216, 9), (300, 2112, 40)):\n"
        "    w, x = (rng.standard_normal(s, dtype=np.float32) for s in ((rows, cols), (1, n, cols)))\n"
        "    for bits in (0, 4, 8):\n"
        "        weight = ops.quantize(ops.asarray(w), bits, 64) if bits else ops.asarray(w)\n"
        "        plain = ops.numpy(ops.dequantize(weight)) if bits else w\n"
        "        for _ in range(20):\n"
        "            assert np.abs(ops.numpy(ops.linear(ops.asarray(x), weight)) - x @ plain.T).max() < 1e-2\n"
        "print('held')"
    )
    told = os.environ | {"MALLOC_PERTURB_": "165", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=told)
    assert (done.returncode, done.stdout) == (0, "held\n"), done.stderr


def test_when_numba_starts(
    large_step: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for small models, not for the first prompt, but for the step after it, and after much work."""
    small, large, busy = (get_backend("torch", "cpu", "float32") for _ in range(3))
    assert not large_step(small, 0, 100)
    assert not large_step(small, 5, 100)
    monkeypatch.setattr("minigen.backends.cpu.compiling.is_compiled", lambda: True)
    assert not large_step(large, 0)
    assert not large_step(large, 0)
    assert large_step(large, 5)
    monkeypatch.setattr("minigen.backends.cpu.start.WORK", 10**7)
    busy.linear(busy.asarray(draw(1, 8, 1024)), busy.zeros((1024, 1024)))
    assert busy.kernels.started  # type: ignore[attr-defined]


def test_torch_keeps_its_threads() -> None:
    """In a process of its own, where numba starts: it sets the number of the OpenMP library that both may use."""
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from minigen.backends import get_backend\n"
        "ops = get_backend('torch', 'cpu', 'float32')\n"
        "ops.kernels.start()\n"
        "print(ops.kernels.started, torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True 1\n"


def test_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGEN_KERNELS", "yes")
    with pytest.raises(UsageError, match="MINIGEN_KERNELS is 'yes': set it to 1"):
        get_backend("torch", "cpu")


def test_numba_that_does_not_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ops: Any = get_backend("torch", "cpu", "float32")
    monkeypatch.setattr("minigen.backends.cpu.compiling.is_compiled", lambda: True)
    monkeypatch.setitem(sys.modules, "numba", None)
    large = ops.zeros((1024, 1024))
    monkeypatch.setattr("minigen.backends.cpu.start.WORK", 1)
    for _ in range(2):
        assert not ops.linear(ops.zeros((1, 1, 1024)), large).any()
    assert [record.message.partition(" (")[0] for record in caplog.records] == [
        "numba does not work here"
    ]
    assert not ops.kernels.started
