"""Keeps memory resident while an Apple GPU computes."""

from __future__ import annotations

import mlx.core as mx

from minigen.backends.mlx.device import device_info


def wire_memory() -> None:
    """Lets MLX keep as much memory resident as the system recommends for the GPU.

    Otherwise macOS may take weights away between two steps, and each step then waits for them. Before macOS 15 it does
    nothing, as on a device that names no such size.
    """
    limit = int(device_info().get("max_recommended_working_set_size", 0))
    if limit:
        mx.set_wired_limit(limit)
