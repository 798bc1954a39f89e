"""Threads of the CPU: how many is asked for, what they may not change, and what they do while they wait."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import minigen
from minigen.backends import get_backend
from minigen.backends.cores import usable_cores
from minigen.errors import UsageError

Tiny = Callable[[str], Path]
Run = Callable[..., tuple[int, str, str]]

# Each kernel with one to four threads, on sizes with an odd end, as the digest of the bytes of what comes out.
DIGESTS = """
import hashlib
import numpy as np
from minigen.backends import get_backend
from minigen.backends.cpu.crew import Crew

ops = get_backend("torch", "cpu", "float32")
kernels = ops.kernels
kernels.start()
import numba
rng = np.random.default_rng(0)
draw = lambda *shape: ops.asarray(rng.standard_normal(shape, dtype=np.float32))
weight, bias, gain = draw(1001, 544), draw(1001), draw(544)
matrices = [weight, weight.bfloat16(), ops.quantize(weight, 8, 32), ops.quantize(weight, 4, 32)]
x, q, k, angles = draw(1, 301, 544), draw(1, 6, 301, 32), draw(1, 3, 301, 32), draw(1, 1, 301, 16)
import minigen.backends.torch.cpu as torch_cpu
torch_cpu.SHARED = 0
for threads in (1, 2, 3, 4):
    kernels.crew = Crew(threads, numba.set_num_threads)
    found = [kernels.norm("RMS_NORM", x, gain, None, 1e-5), kernels.activate("SILU", x)]
    found += [kernels.rotate(q, angles, angles), kernels.attention(q, k, k, 0.3, "causal")]
    for n in (1, 7, 301):
        for matrix in matrices:
            part = x[:, :n].bfloat16() if getattr(matrix, "dtype", None) == weight.bfloat16().dtype else x[:, :n]
            y = kernels.linear(part, matrix, bias.to(part.dtype))
            if y is not None:
                found.append(y)
    assert len(found) >= 14 and not any(y is None for y in found), len(found)
    print(hashlib.sha256(b"".join(ops.numpy(y).tobytes() for y in found)).hexdigest())
"""


def test_no_number_of_threads_changes_a_bit() -> None:
    """Which thread computes a number may change while a text is written; the number may not."""
    pytest.importorskip("numba", reason="numba is not installed")
    pytest.importorskip("torch", reason="torch is not installed")
    told = os.environ | {
        "NUMBA_NUM_THREADS": "4",
        "OMP_NUM_THREADS": "4",
        "OMP_WAIT_POLICY": "passive",
    }
    done = subprocess.run([sys.executable, "-c", DIGESTS], capture_output=True, text=True, env=told)
    assert done.returncode == 0, done.stderr
    digests = done.stdout.split()
    assert len(digests) == 4
    assert len(set(digests)) == 1


def test_threads_that_are_asked_for(tiny: Tiny) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    before = torch.get_num_threads()
    try:
        model = minigen.load(tiny("llama"), "torch", "cpu", threads=1)
        assert (model.runner.ops.threads(), torch.get_num_threads()) == (1, 1)
        assert model.runner.ops.kernels.threads == 1  # type: ignore[attr-defined]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [0, -1, usable_cores() + 1])
def test_threads_that_there_are_not(threads: int) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    with pytest.raises(
        UsageError, match=rf"threads is {threads}: it must be from 1 to {usable_cores()}"
    ):
        get_backend("torch", "cpu", threads=threads)


def test_mlx_chooses_its_threads() -> None:
    pytest.importorskip("mlx", reason="mlx is not installed")
    with pytest.raises(UsageError, match="threads is 1: mlx chooses its threads itself"):
        get_backend("mlx", "cpu", threads=1)


@pytest.mark.parametrize(
    "command", ["generate", "chat", "prompt", "score", "cache", "bench", "train"]
)
def test_every_command_that_runs_a_model_takes_threads(command: str, run_cli: Run) -> None:
    code, out, _ = run_cli(*([command, "build"] if command == "cache" else [command]), "--help")
    assert (code, "--threads" in out) == (0, True)


def test_a_wrong_number_on_the_command_line(tiny: Tiny, run_cli: Run) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    code, out, err = run_cli(
        "generate", tiny("llama"), "-p", "a", "--backend", "torch", "--threads", "0"
    )
    assert (code, out) == (2, "")
    assert err.startswith("minigen: threads is 0: it must be from 1 to")


@pytest.mark.parametrize(
    ("told", "spins"),
    [({}, "5000"), ({"OMP_WAIT_POLICY": "active"}, "None"), ({"GOMP_SPINCOUNT": "9"}, "9")],
)
def test_threads_soon_sleep_while_they_wait(told: dict[str, str], spins: str) -> None:
    """In the command alone, and where the user has set nothing. The libraries read it when they are loaded."""
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    code = "import sys, os, {}; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"

    def spins_after(module: str) -> str:
        program = [sys.executable, "-c", code.format(module)]
        return subprocess.run(
            program, capture_output=True, text=True, check=True, env=clean | told
        ).stdout

    assert spins_after("minigen.cli.entry") == f"{spins} False\n"
    assert spins_after("minigen.model") == f"{told.get('GOMP_SPINCOUNT')} False\n"
