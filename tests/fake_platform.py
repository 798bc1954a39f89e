"""Devices that are not there: what minigen asks a platform for, answered as they would answer.

As a pytest plugin (`pytest -p tests.fake_platform`) it claims a GPU of MLX for the whole run. The
arithmetic stays on the CPU.
"""

from __future__ import annotations

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


def pretend_cuda(replace: Replace = setattr) -> None:
    """Torch takes the steps of a GPU on the CPU: at positions on the device, asked for ahead. They
    are not captured."""
    from minigen.backends.torch.backend import TorchBackend
    from minigen.backends.torch.graphs import StaticSteps

    make = TorchBackend.__init__

    def make_static(
        self: TorchBackend, device: str | None = None, threads: int | None = None
    ) -> None:
        make(self, device, threads)
        self.asynchronous, self.static = True, StaticSteps(self)

    replace(TorchBackend, "__init__", make_static)


def pretend(kind: str) -> None:
    """The device of a kind, "cuda" or "mac", for as long as this process lives. How fast it is is
    not measured: on a CPU the sizes for a GPU would take minutes."""
    from minigen.backends import machine

    machine.measure_peak = lambda ops: 1e12
    if kind == "cuda":
        pretend_cuda()
    else:
        pretend_metal()


def pytest_configure(config: Any) -> None:
    pretend_metal()
