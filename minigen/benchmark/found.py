"""What is found on this machine: the frameworks, their devices, and what holds on them."""

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
    """JSON: the machine, each framework as far as it is installed and imports, and what is taken without flags."""
    environment = settings()  # before a backend adds its own
    usual = without_flags()
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
        "without_flags": usual,
        "promises": promises(usual),
    }


def framework(name: str) -> dict[str, Any] | None:
    """None where it is not installed; with "error" alone beside its version where it does not import."""
    if find_spec(name) is None:
        return None
    try:
        found = import_module(f"minigen.backends.{name}.facts").facts()
    except (
        ImportError,
        OSError,
        RuntimeError,
    ) as error:  # a library or a driver that it does not find
        return {"version": installed(name), "error": first_line(error)}
    return {"version": installed(name), **found}


def without_flags() -> dict[str, Any]:
    """What a command takes that names no backend and no device; "error" alone where there is none."""
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


def promises(usual: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the table, with "here" where it is about the device that is taken without flags."""
    here = promise_for(usual["backend"], usual["device"]) if "backend" in usual else None
    return [{**vars(row), "here": row is here} for row in PROMISES]


def settings() -> dict[str, str]:
    """The variables of the environment that decide on numbers or speed here, where they are set."""
    names = (
        "MINIGEN_",
        "MLX_",
        "CUBLAS_",
        "CUDA_VISIBLE_DEVICES",
        "TORCH_",
        "NVIDIA_TF32",
        "OMP_",
        "PYTORCH_",
    )
    return {name: os.environ[name] for name in sorted(os.environ) if name.startswith(names)}
