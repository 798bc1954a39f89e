"""Creates what depends on the framework: a backend, training on it, the group of its processes.

A framework is imported here when it is first needed, and by no package above this one. What torch/,
mlx/ and cpu/ share is in modules that import neither framework.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from minigen.backends.base import DTYPES, Array, Backend, Tree
from minigen.backends.cores import usable_cores
from minigen.backends.group import ALONE, LAUNCHERS, Group, launched, what_broke
from minigen.errors import BackendError, UsageError

if TYPE_CHECKING:
    from minigen.backends.training import Floats, Forward, Leaf, Training, TrainingSettings

__all__ = [
    "BACKENDS",
    "DTYPES",
    "Array",
    "Backend",
    "Tree",
    "choose_backend",
    "faster_dtype",
    "get_backend",
    "get_training",
    "join_group",
]

BACKENDS = ("torch", "mlx")

# On an M5, MLX computes float32 products with 10 of their 23 bits (TF32) unless this is set before
# the first product, and float32 would then give other text than on other devices.
os.environ.setdefault("MLX_ENABLE_TF32", "0")


def choose_backend(name: str = "auto") -> str:
    """The backend that `name` stands for on this machine.

    "auto" is MLX on Apple silicon and torch elsewhere, or the other one if only that is installed.
    Raises UsageError for an unknown name and BackendError if the framework is not installed.
    """
    if name not in ("auto", *BACKENDS):
        raise UsageError(f"unknown backend {name!r}: choose auto, torch or mlx")
    installed = [backend for backend in BACKENDS if find_spec(backend) is not None]
    if name == "auto":
        apple_silicon = sys.platform == "darwin" and platform.machine() == "arm64"
        preferred = ("mlx", "torch") if apple_silicon else ("torch", "mlx")
        for backend in preferred:
            if backend in installed:
                return backend
        both = 'pip install "minigen[torch]" (CUDA, CPU) or "minigen[mlx]" (Apple silicon, CPU)'
        raise BackendError(f"no array framework is installed: {not_for_this_python() or both}")
    if name not in installed:
        command = f'pip install "minigen[{name}]"'
        raise BackendError(f"{name} is not installed: {not_for_this_python() or command}")
    return name


def not_for_this_python() -> str | None:
    """Advice for a Mac whose Python is not built for Apple silicon; None elsewhere."""
    on_mac, processor = sys.platform == "darwin", platform.machine()
    if not on_mac or processor == "arm64":
        return None
    return (
        f"this Python is for {processor}, and neither torch nor mlx supports that on a Mac "
        "any more: on Apple silicon, use a Python for arm64 (this one runs under Rosetta); "
        "Intel Macs are not supported"
    )


def get_backend(
    name: str = "auto",
    device: str | None = None,
    dtype: str | None = None,
    stored: str = "float32",
    threads: int | None = None,
) -> Backend:
    """A backend on a device, computing in `dtype`.

    Without `dtype`: float32 on a CPU, the checkpoint's own (`stored`) on a GPU. `threads` is the
    number of CPU threads of the whole process; without it torch decides. Raises UsageError for an
    unknown backend or dtype, or a number of threads that is not possible, and BackendError if the
    framework or the device is not available.
    """
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"unknown dtype {dtype!r}: choose {', '.join(DTYPES)}")
    name = choose_backend(name)
    check_threads(threads, name)
    backend: Backend
    try:
        if name == "torch":
            from minigen.backends.torch.backend import TorchBackend

            backend = TorchBackend(device, threads)
            if backend.device.startswith("cuda"):
                from minigen.backends.torch.graphs import StaticSteps

                backend.static = StaticSteps(backend)
        else:
            from minigen.backends.mlx.backend import MLXBackend

            backend = MLXBackend(device)
    except ImportError as error:
        raise BackendError(
            f'{name} is installed but does not import ({error}): pip install "minigen[{name}]"'
        ) from error
    backend.dtype = dtype or (stored if backend.accelerated else "float32")
    if name == "torch" and backend.device.startswith("cuda") and backend.dtype == "float32":
        from minigen.backends.torch.numbers import warn_of_tf32

        warn_of_tf32()
    return backend


def check_threads(threads: int | None, backend: str) -> None:
    """Raises UsageError for a number of threads that the backend cannot use on this machine."""
    if threads is None:
        return
    if backend != "torch":
        raise UsageError(
            f"threads is {threads}: {backend} chooses its threads itself; "
            "leave it out, or use torch"
        )
    if not 1 <= threads <= usable_cores():
        raise UsageError(
            f"threads is {threads}: it must be from 1 to {usable_cores()}, "
            "the processors of this machine"
        )


def faster_dtype(ops: Backend) -> str:
    """The dtype in which float32 training would be faster on this GPU; "" if there is none."""
    if ops.name != "torch" or ops.dtype != "float32" or not ops.device.startswith("cuda"):
        return ""
    from minigen.backends.torch.numbers import has_bfloat16

    if has_bfloat16(ops.device):
        return "bfloat16"
    return ""


def get_training(
    ops: Backend,
    forward: Forward,
    leaves: Sequence[Leaf],
    params: Mapping[str, Floats],
    settings: TrainingSettings,
) -> Training:
    """A Training on the device and in the dtype of `ops`. `params`: float32 weights by path."""
    training: Training
    if ops.name == "torch":
        from minigen.backends.torch.training import TorchTraining

        training = TorchTraining(ops, forward, leaves, params, settings)
    else:
        from minigen.backends.mlx.training import MLXTraining

        training = MLXTraining(ops, forward, leaves, params, settings)
    return training


@cache
def join_group() -> Group:
    """The group of this process, once all its processes have joined; a process has only one.

    Raises BackendError if they cannot reach each other.
    """
    name = launched()
    if not name:
        return ALONE
    group: Group
    try:
        if name == "torch":
            from minigen.backends.torch.group import TorchGroup

            group = TorchGroup()
        else:
            from minigen.backends.mlx.group import MLXGroup

            group = MLXGroup()
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise BackendError(
            f"the processes of {LAUNCHERS[name]} cannot reach each other: {what_broke(error)}"
        ) from error
    if group.size == 1:
        return ALONE
    return group
