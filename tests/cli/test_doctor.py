"""`minigen doctor`, and `minigen --version --verbose`, which is the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest

from minigen.backends.promises import PROMISES

Run = Callable[..., tuple[int, str, str]]

MACHINE: dict[str, Any] = {
    "minigen": "1.2", "python": "3.12.1", "system": "Linux 6 x86_64", "cpu": "A CPU", "processors": 16, "cores": 8,
    "memory_bytes": 2**37, "environment": {"OMP_NUM_THREADS": "4"},
    "frameworks": {
        "torch": {
            "version": "2.12.0", "cuda": "12.8", "hint": None, "threads": 8, "float32_products": "float32",
            "kernels": "compiled",
            "gpus": [{"device": "cuda:0", "name": "NVIDIA H", "memory_bytes": 80 * 2**30, "bfloat16": True}],
        },
        "mlx": None,
    },
    "without_flags": {"backend": "torch", "device": "cuda", "gpu": "NVIDIA H", "memory_bytes": 80 * 2**30,
                      "threads": 8, "dtype": "the checkpoint's own"},
    "promises": [{**vars(row), "here": row.kind == "cuda"} for row in PROMISES],
}  # fmt: skip


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(MACHINE))
    monkeypatch.setattr(import_module("minigen.benchmark.found"), "look", lambda: found)
    return found


def test_for_people(run_cli: Run, machine: dict[str, Any]) -> None:
    code, out, err = run_cli("doctor")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "minigen 1.2, Python 3.12.1, Linux 6 x86_64"
    for line in (
        "processor      A CPU, 16 processors on 8 cores, 128.0 GiB",
        "environment    OMP_NUM_THREADS=4",
        "torch          2.12.0, built for CUDA 12.8; float32 products in float32",
        "               cuda:0: NVIDIA H, 80.0 GiB, bfloat16",
        "               CPU kernels: compiled",
        'mlx            not installed: pip install "minigen[mlx]"',
        "without flags  torch on cuda, the checkpoint's own, 8 threads",
        "*  torch, NVIDIA GPU  the same         the same bytes, by default  float32           sources",
    ):
        assert line in lines
    assert max(map(len, lines)) <= 100
    assert run_cli("--version", "--verbose") == (0, out, "")


def test_for_programs(run_cli: Run, machine: dict[str, Any]) -> None:
    code, out, err = run_cli("doctor", "--json")
    assert (code, err, json.loads(out)) == (0, "", machine)
    assert run_cli("--verbose", "--version", "--json") == (0, out, "")


def test_with_a_command_it_is_a_mistake(run_cli: Run) -> None:
    code, out, err = run_cli("score", "a.txt", "--version", "--verbose")
    assert (code, out) == (2, "")
    assert err.startswith("minigen: unrecognized arguments: --version --verbose")


def test_the_version_alone_is_short(run_cli: Run) -> None:
    code, out, err = run_cli("--version")
    assert (code, out.count("\n"), err) == (0, 1, "")


def test_nothing_that_runs(run_cli: Run, machine: dict[str, Any]) -> None:
    machine["frameworks"]["torch"] = {"version": "2.12.0", "error": "libcudart.so.12: cannot open"}
    machine["without_flags"] = {"error": "torch is installed but does not import"}
    code, out, err = run_cli("doctor")
    assert (code, err) == (1, "")
    assert "torch          2.12.0, which cannot be imported: libcudart.so.12: cannot open\n" in out
    assert "without flags  torch is installed but does not import\n" in out


def test_hints_are_shown(run_cli: Run, machine: dict[str, Any]) -> None:
    machine["frameworks"]["torch"] |= {"cuda": None, "gpus": [], "hint": "install a build for CUDA"}
    out = run_cli("doctor")[1]
    assert "torch          2.12.0, built without CUDA; float32" in out
    assert "               install a build for CUDA\n" in out


@pytest.mark.parametrize(
    ("ops", "wanted"),
    [
        (("torch", "cuda:0", "float32"), "bfloat16"),
        (("torch", "cuda:1", "float32"), ""),
        (("torch", "cuda:0", "bfloat16"), ""),
        (("torch", "cpu", "float32"), ""),
        (("mlx", "gpu", "float32"), ""),
    ],
)
def test_what_would_train_faster(
    monkeypatch: pytest.MonkeyPatch, ops: tuple[str, str, str], wanted: str
) -> None:
    """A GPU that has bfloat16, trained in float32."""
    torch = pytest.importorskip("torch")
    from minigen.backends import faster_dtype

    monkeypatch.setattr(
        torch.cuda, "get_device_capability", {"cuda:0": (8, 0), "cuda:1": (7, 5)}.__getitem__
    )
    name, device, dtype = ops
    assert faster_dtype(SimpleNamespace(name=name, device=device, dtype=dtype)) == wanted  # type: ignore[arg-type]
