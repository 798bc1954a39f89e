"""Choosing a backend. Frameworks are imported here and nowhere above, and only when one is asked for."""

from __future__ import annotations

import os
import platform
import sys
from importlib.util import find_spec

from minigen.backends.base import DTYPES, Array, Backend, Tree
from minigen.backends.cores import usable_cores
from minigen.errors import BackendError, UsageError

__all__ = [
    "BACKENDS",
    "DTYPES",
    "Array",
    "Backend",
    "Tree",
    "check_memory",
    "choose_backend",
    "get_backend",
    "peak_rss",
    "physical_memory",
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
            from minigen.backends.torch import TorchBackend

            backend = TorchBackend(device, threads)
        else:
            from minigen.backends.mlx import MLXBackend

            backend = MLXBackend(device)
    except ImportError as error:
        raise BackendError(
            f'{name} is installed but does not import ({error}): pip install "minigen[{name}]"'
        ) from error
    backend.dtype = dtype or (stored if backend.accelerated else "float32")
    if name == "torch" and backend.device.startswith("cuda") and backend.dtype == "float32":
        from minigen.backends.torch_numbers import warn_of_tf32

        warn_of_tf32()
    return backend


def check_threads(threads: int | None, backend: str) -> None:
    """Raises UsageError for a number of threads that the backend cannot have on this machine."""
    if threads is None:
        return
    if backend != "torch":
        raise UsageError(f"threads is {threads}: {backend} chooses its threads itself; leave it out, or take torch")
    if not 1 <= threads <= usable_cores():
        raise UsageError(f"threads is {threads}: it must be from 1 to {usable_cores()}, the processors of this machine")


def check_memory(wanted: int, memory: int, how: str = "at once") -> None:
    """Raises BackendError, before anything is allocated, for more bytes than the device has.

    `how` tells the limit: of all arrays together, or "in one array".
    """
    if wanted > memory:
        most = "has" if how == "at once" else "takes"
        raise BackendError(
            f"this needs {wanted / 2**30:.1f} GiB {how}, and the device {most} {memory / 2**30:.1f} GiB: "
            "ask for fewer tokens, samples or prompts"
        )


def physical_memory() -> int:
    """This machine's memory in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def peak_rss() -> int:
    """Peak resident memory of this process in bytes: what a backend on the CPU reports as its memory."""
    import re
    import resource
    from pathlib import Path

    status = Path("/proc/self/status")  # Linux: what getrusage says there may be the peak of the parent, at the start
    found = re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), re.MULTILINE) if status.exists() else None
    if found is not None:
        return 1024 * int(found[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes
