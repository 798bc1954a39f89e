"""Describes this machine: the frameworks, their devices, and what is promised on them."""

from __future__ import annotations

import os
import platform
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from minigen.backends import BACKENDS, choose_backend, get_backend
from minigen.backends.cores import physical_cores, usable_cores
from minigen.backends.machine import cpu_name
from minigen.backends.memory import physical_memory
from minigen.backends.packages import installed
from minigen.backends.promises import PROMISES, promise_for
from minigen.errors import MinigenError, first_line


def look() -> dict[str, Any]:
    """The machine, the installed frameworks, and the choices without flags, as JSON."""
    environment = settings()  # before a backend adds its own
    defaults = without_flags()
    return {
        "minigen": installed("minigen"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_name(),
        "processors": usable_cores(),
        "cores": physical_cores(),
        "memory_bytes": physical_memory(),
        "environment": environment,
        "frameworks": {name: framework(name) for name in BACKENDS},
        "without_flags": defaults,
        "promises": promises(defaults),
    }


def framework(name: str) -> dict[str, Any] | None:
    """The facts about a framework; None if it is not installed.

    If it cannot be imported, they are only its version and "error".
    """
    if find_spec(name) is None:
        return None
    try:
        facts = import_module(f"minigen.backends.{name}.facts").facts()
    except (ImportError, OSError, RuntimeError) as error:  # a missing library or driver
        return {"version": installed(name), "error": first_line(error)}
    return {"version": installed(name), **facts}


def without_flags() -> dict[str, Any]:
    """The backend, device and dtype of a command without flags; only "error" if there is none."""
    try:
        ops = get_backend(choose_backend())
    except MinigenError as error:
        return {"error": str(error)}
    return {
        "backend": ops.name,
        "device": ops.device,
        "gpu": ops.device_name(),
        "memory_bytes": ops.total_memory(),
        "threads": ops.threads(),
        "dtype": "the checkpoint's own" if ops.accelerated else "float32",
    }


def promises(defaults: dict[str, Any]) -> list[dict[str, Any]]:
    """The promises; "here" is true for the device that is used without flags."""
    here = None
    if "backend" in defaults:
        here = promise_for(defaults["backend"], defaults["device"])
    return [{**vars(row), "here": row is here} for row in PROMISES]


def settings() -> dict[str, str]:
    """The environment variables that affect numbers or speed."""
    names = (
        *("MINIGEN_", "MLX_", "CUBLAS_", "CUDA_VISIBLE_DEVICES"),
        *("TORCH_", "NVIDIA_TF32", "OMP_", "PYTORCH_"),
    )
    return {name: os.environ[name] for name in sorted(os.environ) if name.startswith(names)}
