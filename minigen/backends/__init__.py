"""The framework that was chosen, and what is made of it: a backend, the training on it, the group of its processes.

Frameworks are imported by what is here, only when one is asked for, and nowhere above. What their rooms share lies in
modules that import neither.
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

# MLX computes products of float32 with 10 bits of their 23 on an M5 (TF32) unless told otherwise,
# and reads this at the first one: float32 would not give the text that it gives elsewhere.
os.environ.setdefault("MLX_ENABLE_TF32", "0")


def choose_backend(name: str = "auto") -> str:
    """The backend that `name` means here: "auto" is MLX on Apple silicon, else torch, else whichever is installed.

    Raises UsageError for an unknown name and BackendError when the framework is not installed.
    """
    if name not in ("auto", *BACKENDS):
        raise UsageError(f"unknown backend {name!r}: choose auto, torch or mlx")
    installed = [backend for backend in BACKENDS if find_spec(backend) is not None]
    if name == "auto":
        apple = sys.platform == "darwin" and platform.machine() == "arm64"
        for backend in ("mlx", "torch") if apple else ("torch", "mlx"):
            if backend in installed:
                return backend
        both = 'pip install "minigen[torch]" (CUDA, CPU) or "minigen[mlx]" (Apple silicon, CPU)'
        raise BackendError(f"no array framework is installed: {not_for_this_python() or both}")
    if name not in installed:
        one = f'pip install "minigen[{name}]"'
        raise BackendError(f"{name} is not installed: {not_for_this_python() or one}")
    return name


def not_for_this_python() -> str | None:
    """What to do on a Mac whose Python is not for Apple silicon; None elsewhere."""
    processor, mac = platform.machine(), sys.platform == "darwin"
    if not mac or processor == "arm64":
        return None
    return (
        f"this Python is for {processor}, and neither torch nor mlx is built for that on a Mac any more: on Apple "
        "silicon take a Python for arm64 (this one runs under Rosetta), an Intel Mac has none"
    )


def get_backend(
    name: str = "auto",
    device: str | None = None,
    dtype: str | None = None,
    stored: str = "float32",
    threads: int | None = None,
) -> Backend:
    """A backend on a device, computing in `dtype`.

    Without `dtype`: float32 on a CPU, the checkpoint's own (`stored`) on a GPU. `threads` is how many threads of the
    CPU compute, in this whole process; without it torch decides. Raises UsageError for an unknown backend or dtype, or
    threads that cannot be had, and BackendError when the framework or the device is not available.
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
    """Raises UsageError for a number of threads that the backend cannot have on this machine."""
    if threads is None:
        return
    if backend != "torch":
        raise UsageError(
            f"threads is {threads}: {backend} chooses its threads itself; leave it out, or take torch"
        )
    if not 1 <= threads <= usable_cores():
        raise UsageError(
            f"threads is {threads}: it must be from 1 to {usable_cores()}, the processors of this machine"
        )


def faster_dtype(ops: Backend) -> str:
    """The dtype that a training in float32 is faster in on its GPU; empty where there is none."""
    if ops.name != "torch" or ops.dtype != "float32" or not ops.device.startswith("cuda"):
        return ""
    from minigen.backends.torch.numbers import has_bfloat16

    return "bfloat16" if has_bfloat16(ops.device) else ""


def get_training(
    ops: Backend,
    forward: Forward,
    leaves: Sequence[Leaf],
    params: Mapping[str, Floats],
    settings: TrainingSettings,
) -> Training:
    """A Training on the device and in the dtype of `ops`, from float32 weights by path."""
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
    """The one group of this process, once all of it are there. Raises BackendError where they do not meet."""
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
            f"the processes of {LAUNCHERS[name]} do not meet: {what_broke(error)}"
        ) from error
    return group if group.size > 1 else ALONE
