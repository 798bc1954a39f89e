"""What MLX finds on this machine, for `minigen doctor`."""

from __future__ import annotations

import os
from typing import Any

import mlx.core as mx


def facts() -> dict[str, Any]:
    """As JSON: the GPU, and how float32 products are computed."""
    gpu = mx.is_available(mx.Device(mx.gpu))
    full = not gpu or os.environ.get("MLX_ENABLE_TF32") == "0"
    products = "float32"
    if not full:
        products = "TF32 where the GPU has it (MLX_ENABLE_TF32=0: not)"
    return {"gpus": [describe()] if gpu else [], "float32_products": products}


def describe() -> dict[str, Any]:
    ask = getattr(mx, "device_info", None) or mx.metal.device_info  # the older name
    found = ask()
    return {
        "device": "gpu",
        "name": str(found.get("device_name", "GPU")),
        "memory_bytes": int(
            found.get("max_recommended_working_set_size") or found.get("memory_size") or 0
        ),
    }
