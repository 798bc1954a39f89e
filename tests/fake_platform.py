"""A Mac that is not there: what minigen asks a platform for, answered as Apple silicon answers.

As a pytest plugin (`pytest -p tests.fake_platform`) it claims a GPU of MLX for the whole run. The
arithmetic stays on the CPU.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from typing import Any

WORKING_SET, BUFFER = 2**30, 2**28  # bytes that the GPU takes, in all and in one array

INFO = {
    "device_name": "Apple M0 (simulated)",
    "architecture": "applegpu_g00s",
    "memory_size": 2**31,
    "max_recommended_working_set_size": WORKING_SET,
    "max_buffer_length": BUFFER,
    "resource_limit": 499000,
}

Replace = Callable[[Any, str, Any], object]  # setattr, or that of a MonkeyPatch


def pretend_metal(replace: Replace = setattr) -> None:
    """MLX says that it computes on a GPU."""
    import mlx.core as mx

    usable, devices = mx.is_available, [mx.Device(mx.gpu)]

    def is_available(device: Any) -> bool:
        return "gpu" in str(device) or bool(usable(device))

    replace(mx, "default_device", lambda: devices[-1])
    replace(mx, "set_default_device", devices.append)
    replace(mx, "is_available", is_available)
    replace(mx, "device_info", lambda device=None: INFO)


def pretend_mac(replace: Replace = setattr, processor: str = "arm64") -> None:
    """Python says that it runs on a Mac."""
    replace(sys, "platform", "darwin")
    replace(platform, "machine", lambda: processor)


def pytest_configure(config: Any) -> None:
    pretend_metal()
