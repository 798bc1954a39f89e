"""The device that MLX computes on, and how much it holds."""

from __future__ import annotations

import os

import mlx.core as mx

from minigen.backends.memory import physical_memory
from minigen.errors import BackendError

VARIABLE = "MINIGEN_MLX_DEVICE"  # the device where none is given: MLX has no CUDA_VISIBLE_DEVICES


def choose_device(device: str | None) -> str:
    """ "cpu" or "gpu": the one that is asked for, else the one that the environment names, else
    MLX's own choice. Raises BackendError for one that is not there."""
    usual = str(mx.default_device().type).rsplit(".", 1)[-1]
    chosen = device or os.environ.get(VARIABLE) or usual
    if chosen not in ("cpu", "gpu"):
        raise BackendError(f"mlx has no device {chosen!r}: choose cpu or gpu")
    if not mx.is_available(mx.Device(getattr(mx, chosen))):
        raise BackendError(f"mlx cannot use the device {chosen!r} on this machine: choose cpu")
    return chosen


def device_info() -> dict[str, str | int]:
    """What the default device says of itself."""
    ask = getattr(mx, "device_info", None) or mx.metal.device_info  # the older name
    found: dict[str, str | int] = ask()
    return found


def gpu_memory() -> int:
    """Bytes that a GPU holds: on Apple silicon what the system lets it have of the memory that both
    share, on CUDA its own."""
    info = device_info()
    found = info.get("max_recommended_working_set_size") or info.get("total_memory")
    return int(found or physical_memory())


def largest_array() -> int:
    """Bytes of the longest array on a GPU: Metal has no longer buffers."""
    return int(device_info().get("max_buffer_length") or gpu_memory())
