"""What MLX does on a GPU alone, on the CPU: functions fused into one kernel, and steps that are asked for ahead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest

import minigen

mx: Any = pytest.importorskip("mlx.core", reason="mlx is not installed")


@pytest.mark.skipif(which("g++") is None, reason="MLX compiles with g++ on a CPU")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fused_functions_compute_the_same(dtype: str) -> None:
    from minigen.backends.mlx.backend import SMALL, rotate_pair

    rng = np.random.default_rng(0)
    for f in SMALL:
        fused = mx.compile(f, shapeless=True)
        for rows, T in ((1, 1), (2, 3), (1, 5)):  # made for the first shape, right for the others
            x, y = (
                mx.array(rng.standard_normal((2, 3, T, 8))).astype(getattr(mx, dtype))
                for _ in range(2)
            )
            tables = [
                mx.array(rng.standard_normal((rows, 1, T, 8))).astype(getattr(mx, dtype))
                for _ in range(2)
            ]
            args = (x, y, *tables) if f is rotate_pair else (x,)
            got, want = fused(*args), f(*args)
            for a, b in zip(got, want, strict=True) if f is rotate_pair else ((got, want),):
                assert a.shape == b.shape
                assert float(mx.abs(a - b).max()) <= (1e-6 if dtype == "float32" else 0.04)


def test_steps_ahead_do_not_copy_the_cache(make_model: Callable[..., Path]) -> None:
    """The buffers are written where they lie: nothing holds the arrays of the step before."""
    from minigen.generation.loop import generate
    from minigen.generation.options import Options
    from minigen.generation.rows import Row

    runner: Any = minigen.load(
        make_model("llama", max_position_embeddings=20000), backend="mlx", device="cpu"
    ).runner
    runner.ops.asynchronous = True
    row = Row([1, 2, 3])
    steps = generate(runner, [row], Options.of(temperature=0, max_tokens=19000, ignore_eos=True))
    next(steps)
    next(steps)
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    for _ in range(5):
        next(steps)
    one = 4 * 2 * 8 * 19003  # bytes of the keys of a layer
    assert mx.get_peak_memory() - before < one


@pytest.mark.parametrize(
    "settings", [{"temperature": 0}, {"temperature": 0.8}, {"temperature": 1, "top_p": 1}], ids=str
)
def test_nan_among_the_logits_is_an_error_on_metal(
    make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """Where argmax passes over NaN, a row that has one beside good numbers must not go on as if it had none."""
    from minigen.errors import MinigenError
    from minigen.generation.loop import generate
    from minigen.generation.options import Options
    from minigen.generation.rows import Row

    argmax = mx.argmax

    def skipping(x: Any, **how: Any) -> Any:
        return argmax(mx.where(mx.isnan(x), -mx.inf, x), **how)

    monkeypatch.setattr(mx, "argmax", skipping)
    runner: Any = minigen.load(
        make_model("llama", vocab_size=700), backend="mlx", device="cpu"
    ).runner
    weight = runner.params["embedding"]["weight"]
    weight[5, 0] = mx.nan  # the head is tied to it: one logit of each row
    for asynchronous in (False, True):
        runner.ops.accelerated, runner.ops.asynchronous = True, asynchronous
        with pytest.raises(MinigenError, match="the model produced NaN as a logit"):
            list(generate(runner, [Row([1, 2, 3])], Options.of(max_tokens=3, seed=1, **settings)))


@pytest.mark.parametrize(
    ("info", "wired"), [({"max_recommended_working_set_size": 7 * 2**30}, [7 * 2**30]), ({}, [])]
)
def test_memory_is_wired_as_the_system_recommends(
    monkeypatch: pytest.MonkeyPatch, info: dict[str, int], wired: list[int]
) -> None:
    from minigen.backends.mlx import backend as mlx
    from minigen.backends.mlx import memory as mlx_memory

    found: list[int] = []
    monkeypatch.setattr(mx, "device_info", lambda: info)
    monkeypatch.setattr(mx, "set_wired_limit", found.append)
    mlx_memory.wire_memory()
    assert found == wired
    called: list[bool] = []
    monkeypatch.setattr(mlx, "wire_memory", lambda: called.append(True))
    monkeypatch.setattr(mlx.MLXBackend, "used", None)
    monkeypatch.setattr(mx, "is_available", lambda device: True)
    monkeypatch.setattr(mx, "set_default_device", lambda device: None)
    for device in ("cpu", "gpu"):
        mlx.MLXBackend.used = None
        mlx.MLXBackend(device)
    assert called == [True]  # on the GPU alone


def test_the_cache_of_memory_is_given_back_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from minigen.backends import get_backend

    ops: Any = get_backend("mlx", "cpu")
    mx.eval(mx.zeros(2**20) + 1)  # which is gone at once, and kept by the allocator
    ops.release()
    kept = mx.get_cache_memory()
    assert kept >= 2**22
    ops.accelerated = True
    ops.release()
    assert mx.get_cache_memory() == 0


@pytest.mark.parametrize(("heads", "groups", "width"), [(4, 2, 64), (3, 3, 32), (8, 2, 128)])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("T", "kind"), [(1, None), (5, "causal"), (5, "rows"), (1, "rows")])
def test_attention_over_codes_is_that_over_numbers(
    heads: int, groups: int, width: int, bits: int, T: int, kind: str | None
) -> None:
    """As on a GPU, which reads the codes, and on a CPU, which makes numbers of them; a view of a longer buffer."""
    from minigen.backends import get_backend
    from minigen.backends.quantized import tokens

    ops: Any = get_backend("mlx", "cpu", "float32")
    rng = np.random.default_rng(width + bits)
    S, group = 33, 64 if width % 64 == 0 else 32
    q = ops.asarray(rng.standard_normal((2, heads, T, width)))
    k, v = (
        tokens(
            ops.quantize(ops.asarray(rng.standard_normal((2, groups, 40, width))), bits, group),
            0,
            S,
        )
        for _ in range(2)
    )
    mask: Any = kind
    if kind == "rows":
        seen = rng.random((2, 1, T, S)) < 0.5
        seen[..., 0] = True
        mask = ops.asarray(seen)
    want = ops.numpy(ops.attention(q, k, v, width**-0.5, mask))
    ops.dequantize = lambda x: pytest.fail("the cache was made numbers of")
    ops.accelerated = True
    got = ops.numpy(ops.attention(q, k, v, width**-0.5, mask))
    assert np.abs(got - want).max() <= 1e-5
