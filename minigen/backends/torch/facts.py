"""What torch finds on this machine, as `minigen doctor` tells it."""

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
    """JSON: its CUDA and GPUs, threads, how float32 products are made, and the kernels of a CPU."""
    return {
        "cuda": torch.version.cuda,
        "gpus": [describe(index) for index in range(torch.cuda.device_count())],
        "hint": hint(),
        "threads": torch.get_num_threads(),
        "float32_products": "TF32" if torch_numbers.tf32_products() else "float32",
        "kernels": kernels(),
    }


def describe(index: int) -> dict[str, Any]:
    found = torch.cuda.get_device_properties(index)
    return {
        "device": f"cuda:{index}",
        "name": found.name,
        "memory_bytes": int(found.total_memory),
        "capability": f"{found.major}.{found.minor}",
        "bfloat16": torch_numbers.has_bfloat16(f"cuda:{index}"),
    }


def hint() -> str | None:
    """Why torch finds no GPU, where it could be expected to."""
    if torch.cuda.device_count() or not DRIVER.exists():
        return None
    if torch.version.cuda is None:
        return "there is an NVIDIA driver, and this torch is built without CUDA: install a build for CUDA"
    return (
        f"there is an NVIDIA driver, and torch finds no GPU: see whether it is new enough for CUDA "
        f"{torch.version.cuda}"
    )


def kernels() -> str:
    """Of decoding on a CPU, by numba."""
    try:
        start.wanted()
    except UsageError as error:
        return str(error)
    if os.environ.get(start.VARIABLE) == "0":
        return f"off ({start.VARIABLE}=0)"
    if find_spec("numba") is None:
        return 'not there: pip install "minigen[fast]"'
    return "compiled" if is_compiled() else "compiled at the first use"
