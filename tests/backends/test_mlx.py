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
    from minigen.backends.mlx import SMALL, turn

    rng = np.random.default_rng(0)
    for f in SMALL:
        fused = mx.compile(f, shapeless=True)
        for rows, T in ((1, 1), (2, 3), (1, 5)):  # made for the first shape, right for the others
            x, y = (mx.array(rng.standard_normal((2, 3, T, 8))).astype(getattr(mx, dtype)) for _ in range(2))
            tables = [mx.array(rng.standard_normal((rows, 1, T, 8))).astype(getattr(mx, dtype)) for _ in range(2)]
            args = (x, y, *tables) if f is turn else (x,)
            got, want = fused(*args), f(*args)
            for a, b in zip(got, want, strict=True) if f is turn else ((got, want),):
                assert a.shape == b.shape
                assert float(mx.abs(a - b).max()) <= (1e-6 if dtype == "float32" else 0.04)


def test_steps_ahead_do_not_copy_the_cache(make_model: Callable[..., Path]) -> None:
    """The buffers are written where they lie: nothing holds the arrays of the step before."""
    from minigen.generate import Row, generate
    from minigen.options import Options

    runner: Any = minigen.load(make_model("llama", max_position_embeddings=20000), backend="mlx", device="cpu").runner
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
