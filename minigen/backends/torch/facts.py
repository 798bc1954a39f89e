"""What torch finds on this machine, for `minigen doctor`."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from minigen.backends.cpu import start
from minigen.backends.cpu.compiling import is_compiled
from minigen.backends.torch import numbers as torch_numbers
from minigen.errors import UsageError

DRIVER = Path("/proc/driver/nvidia/version")


def facts() -> dict[str, Any]:
    """As JSON: CUDA and GPUs, threads, how float32 products are computed, and the CPU's kernels."""
    tf32 = torch_numbers.tf32_products()
    return {
        "cuda": torch.version.cuda,
        "gpus": [describe(index) for index in range(torch.cuda.device_count())],
        "hint": hint(),
        "threads": torch.get_num_threads(),
        "float32_products": "TF32" if tf32 else "float32",
        "kernels": kernels(),
    }


def describe(index: int) -> dict[str, Any]:
    """A GPU, as JSON."""
    gpu = torch.cuda.get_device_properties(index)
    return {
        "device": f"cuda:{index}",
        "name": gpu.name,
        "memory_bytes": int(gpu.total_memory),
        "capability": f"{gpu.major}.{gpu.minor}",
        "bfloat16": torch_numbers.has_bfloat16(f"cuda:{index}"),
    }


def hint() -> str | None:
    """Why torch finds no GPU although there is a driver for one; None if that is not so."""
    if torch.cuda.device_count() or not DRIVER.exists():
        return None
    if torch.version.cuda is None:
        return (
            "there is an NVIDIA driver, and this torch is built without CUDA: "
            "install a build for CUDA"
        )
    return (
        "there is an NVIDIA driver, and torch finds no GPU: check that the driver is new enough "
        f"for CUDA {torch.version.cuda}"
    )


def kernels() -> str:
    """The state of numba's kernels, which decode on a CPU."""
    try:
        start.wanted()
    except UsageError as error:
        return str(error)
    if os.environ.get(start.VARIABLE) == "0":
        return f"off ({start.VARIABLE}=0)"
    if find_spec("numba") is None:
        return 'not there: pip install "minigen[fast]"'
    if is_compiled():
        return "compiled"
    return "compiled at the first use"
