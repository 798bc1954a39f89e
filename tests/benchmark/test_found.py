"""What is told of a machine, on machines that are not there; `minigen help internals` has the same table."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minigen.backends import BACKENDS
from minigen.backends.promises import HEAD, PROMISES, promise_for
from minigen.benchmark.found import look

PAGE = (Path(__file__).parents[2] / "minigen" / "pages" / "internals.md").read_text(
    encoding="utf-8"
)


def test_the_page_has_the_table() -> None:
    rows = [HEAD, ["---"] * len(HEAD), *(promise.cells() for promise in PROMISES)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows).replace(
        "| --- | --- | --- | --- | --- |", "|---" * 5 + "|"
    )
    assert f"\n\n{table}\n\n" in PAGE


@pytest.mark.parametrize(
    ("name", "device", "row"),
    [
        ("torch", "cpu", "torch, CPU"),
        ("torch", "cuda", "torch, NVIDIA GPU"),
        ("torch", "cuda:1", "torch, NVIDIA GPU"),
        ("mlx", "gpu", "MLX, Apple GPU"),
        ("mlx", "cpu", "MLX, CPU"),
    ],
)
def test_every_device_has_a_row(name: str, device: str, row: str) -> None:
    promise = promise_for(name, device)
    assert promise is not None
    assert promise.device == row


def test_there_is_no_row_of_other_devices() -> None:
    assert promise_for("torch", "xpu:0") is None


def test_this_machine() -> None:
    found = look()
    assert json.loads(json.dumps(found)) == found
    assert set(found["frameworks"]) == set(BACKENDS)
    for name, facts in found["frameworks"].items():
        assert (facts is None) == (find_spec(name) is None)
        assert facts is None or "error" not in facts
    usual = found["without_flags"]
    assert [row["device"] for row in found["promises"] if row["here"]] == [
        promise.device
        for promise in PROMISES
        if promise.backend == usual["backend"] and promise.kind in usual["device"]
    ]


@pytest.mark.parametrize("missing", BACKENDS)
def test_one_framework_alone(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    other = next(name for name in BACKENDS if name != missing)
    pytest.importorskip(f"{other}.core" if other == "mlx" else other)
    monkeypatch.setitem(sys.modules, missing, None)
    found = look()
    assert found["frameworks"][missing] is None
    assert "error" not in found["frameworks"][other]
    assert found["without_flags"]["backend"] == other


def test_no_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in BACKENDS:
        monkeypatch.setitem(sys.modules, name, None)
    found = look()
    assert found["frameworks"] == {"torch": None, "mlx": None}
    assert found["without_flags"]["error"].startswith(
        "no array framework is installed: pip install"
    )
    assert not any(row["here"] for row in found["promises"])


def test_a_framework_that_does_not_import(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, "minigen.backends.torch.facts", None)
    facts = look()["frameworks"]["torch"]
    assert set(facts) == {"version", "error"}
    assert "\n" not in facts["error"]


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> Any:
    """torch with two GPUs, of which the first has bfloat16."""
    torch = pytest.importorskip("torch")
    gpus = [SimpleNamespace(name="NVIDIA A", total_memory=2**35, major=8, minor=9),
            SimpleNamespace(name="NVIDIA B", total_memory=2**34, major=7, minor=5)]  # fmt: skip
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpus[index])
    ability = {f"cuda:{index}": (gpu.major, gpu.minor) for index, gpu in enumerate(gpus)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", ability.__getitem__)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    return torch


def test_gpus_of_torch(two_gpus: Any) -> None:
    from minigen.backends.torch.facts import facts

    found = facts()
    assert (found["cuda"], found["hint"], found["float32_products"]) == ("12.8", None, "float32")
    assert found["gpus"] == [
        {
            "device": "cuda:0",
            "name": "NVIDIA A",
            "memory_bytes": 2**35,
            "capability": "8.9",
            "bfloat16": True,
        },
        {
            "device": "cuda:1",
            "name": "NVIDIA B",
            "memory_bytes": 2**34,
            "capability": "7.5",
            "bfloat16": False,
        },
    ]


def test_tf32_is_seen(two_gpus: Any) -> None:
    from minigen.backends.torch.facts import facts

    two_gpus.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        assert facts()["float32_products"] == "TF32"
    finally:
        two_gpus.backends.cuda.matmul.fp32_precision = "none"


@pytest.mark.parametrize(
    ("cuda", "said"), [(None, "built without CUDA: install"), ("12.8", "new enough for CUDA 12.8")]
)
def test_a_gpu_that_torch_does_not_find(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cuda: str | None, said: str
) -> None:
    torch = pytest.importorskip("torch")
    from minigen.backends.torch import facts as torch_facts

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch_facts, "DRIVER", tmp_path / "version")
    assert torch_facts.hint() is None
    (tmp_path / "version").touch()
    assert said in str(torch_facts.hint())


def test_kernels_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from minigen.backends.torch import facts as torch_facts

    monkeypatch.setenv("MINIGEN_KERNELS", "1")
    told = {
        (False, False): "not there: pip",
        (True, False): "compiled at the first use",
        (True, True): "compiled",
    }
    for (numba, compiled), said in told.items():
        monkeypatch.setattr(torch_facts, "find_spec", lambda name, numba=numba: numba or None)
        monkeypatch.setattr(torch_facts, "is_compiled", lambda compiled=compiled: compiled)
        assert torch_facts.kernels().startswith(said)
    monkeypatch.setenv("MINIGEN_KERNELS", "0")
    assert torch_facts.kernels() == "off (MINIGEN_KERNELS=0)"
    monkeypatch.setenv("MINIGEN_KERNELS", "yes")
    assert "set it to 1" in torch_facts.kernels()


@pytest.mark.parametrize(
    ("said", "products"), [("0", "float32"), ("1", "TF32 where"), (None, "TF32 where")]
)
def test_the_gpu_of_mlx(monkeypatch: pytest.MonkeyPatch, said: str | None, products: str) -> None:
    mx = pytest.importorskip("mlx.core")
    from minigen.backends.mlx.facts import facts

    info = {
        "device_name": "Apple M5",
        "memory_size": 2**35,
        "max_recommended_working_set_size": 2**34,
    }
    monkeypatch.setattr(mx, "is_available", lambda device: True)
    monkeypatch.setattr(mx, "device_info", lambda: info)
    monkeypatch.setenv("MLX_ENABLE_TF32", "")
    monkeypatch.delenv("MLX_ENABLE_TF32")
    if said is not None:
        monkeypatch.setenv("MLX_ENABLE_TF32", said)
    found = facts()
    assert found["gpus"] == [{"device": "gpu", "name": "Apple M5", "memory_bytes": 2**34}]
    assert found["float32_products"].startswith(products)
