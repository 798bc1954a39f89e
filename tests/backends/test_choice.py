"""Which backend `auto` is, and what is said where one is missing."""

from __future__ import annotations

import platform
import sys
from importlib.machinery import ModuleSpec

import pytest

import minigen.backends as backends
from minigen.backends import choose_backend, get_backend
from minigen.errors import BackendError, UsageError


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    def make(system: str, processor: str, *installed: str) -> None:
        monkeypatch.setattr(sys, "platform", system)
        monkeypatch.setattr(platform, "machine", lambda: processor)
        monkeypatch.setattr(
            backends,
            "find_spec",
            lambda name: ModuleSpec(name, None) if name in installed else None,
        )

    return make


@pytest.mark.parametrize(
    ("system", "processor", "installed", "wanted"),
    [
        ("darwin", "arm64", ("torch", "mlx"), "mlx"),
        ("darwin", "arm64", ("torch",), "torch"),
        ("darwin", "x86_64", ("torch", "mlx"), "torch"),
        ("linux", "x86_64", ("torch", "mlx"), "torch"),
        ("linux", "aarch64", ("mlx",), "mlx"),
    ],
)
def test_auto(
    machine, system: str, processor: str, installed: tuple[str, ...], wanted: str
) -> None:  # type: ignore[no-untyped-def]
    machine(system, processor, *installed)
    assert choose_backend("auto") == wanted


def test_missing_frameworks_name_the_command(machine) -> None:  # type: ignore[no-untyped-def]
    machine("linux", "x86_64", "mlx")
    with pytest.raises(
        BackendError, match=r'^torch is not installed: pip install "minigen\[torch\]"$'
    ):
        choose_backend("torch")
    machine("linux", "x86_64")
    with pytest.raises(
        BackendError,
        match=r'^no array framework is installed: pip install "minigen\[torch\]" .*\[mlx\]"',
    ):
        choose_backend("auto")


@pytest.mark.parametrize("name", ["mlx", "torch", "auto"])
def test_a_python_that_is_not_for_apple_silicon(machine, name: str) -> None:  # type: ignore[no-untyped-def]
    """Of an Intel Mac, or under Rosetta: pip leaves mlx out, and there is nothing to install."""
    said = {"auto": "no array framework is installed"}.get(name, f"{name} is not installed")
    machine("darwin", "x86_64")
    with pytest.raises(BackendError, match=rf"^{said}: this Python is for x86_64, and neither"):
        choose_backend(name)
    machine("darwin", "arm64")
    with pytest.raises(BackendError, match=rf"^{said}: pip install"):
        choose_backend(name)


def test_unknown_names(backend: str) -> None:
    with pytest.raises(UsageError, match="unknown backend 'jax': choose auto, torch or mlx"):
        choose_backend("jax")
    with pytest.raises(UsageError, match="unknown dtype 'int4': choose float32, bfloat16, float16"):
        get_backend(backend, dtype="int4")
    with pytest.raises(
        BackendError, match=rf"^{backend} (has no|cannot use the) device 'abacus': "
    ):
        get_backend(backend, "abacus")


def test_default_dtype(backend: str) -> None:
    ops = get_backend(backend, "cpu", stored="bfloat16")
    assert ops.dtype == ("bfloat16" if ops.accelerated else "float32")
    assert get_backend(backend, "cpu", "bfloat16").dtype == "bfloat16"
