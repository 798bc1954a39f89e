"""What the frameworks say when a device fails: that memory is short, or that something else broke.

They have few classes for it, so the words decide. Nothing here imports a framework.
"""

from __future__ import annotations

import re

from minigen.errors import first_line

# The words of each device when memory is short, from the sources of torch 2.13 and MLX 0.32.4.
OUT_OF_MEMORY = {
    "torch, any device": r"out of memory",  # CUDA, HIP, XPU and MPS, and "CUDA error: out of memory"
    "torch on a CPU": r"can't allocate memory|not enough memory: you tried to allocate",
    "torch, libraries on CUDA": r"CU(BLAS|DNN|SPARSE|SOLVER)_STATUS_ALLOC_FAILED",
    "torch on MPS": r"Invalid buffer size: \d",
    "MLX on a CPU": r"\[malloc\w*\] Unable to allocate",
    "MLX on Metal, one array": r"\[metal::malloc\] Attempting to allocate",
    "MLX on Metal, too many arrays": r"\[metal::malloc\] Resource limit",
    "MLX on Metal, while it computes": r"Insufficient Memory|ErrorOutOfMemory",
    "C++": r"std::bad_alloc",
}
SHORT = re.compile("|".join(OUT_OF_MEMORY.values()), re.IGNORECASE)
# A device that failed otherwise: what it computes from now on in this process cannot be relied on.
BROKEN = re.compile(
    r"CUDA error: |CUDA driver error: |HIP error: |cuDNN error: |CU(BLAS|DNN)_STATUS_|"
    r"\[METAL\] Command buffer execution failed"
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, torch or MLX says that memory is short.

    "memory" alone says nothing: an illegal memory access is a fault of a kernel, and a single
    memory location one of ours.
    """
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and SHORT.search(str(error)) is not None


def broken_device(error: BaseException) -> str | None:
    """One line for a device that failed while it computed; None for what is no such thing."""
    said = first_line(error)
    if not isinstance(error, RuntimeError) or out_of_memory(error) or not BROKEN.search(said):
        return None
    if "[METAL]" in said:
        advice = "run it again, with a shorter prompt if it fails once more, or with --device cpu"
    else:
        advice = (
            "run it again with MINIGEN_GRAPHS=0, and where it fails still with CUDA_LAUNCH_BLOCKING=1, "
            "which shows the operation, or with --device cpu"
        )
    return f"the GPU failed ({said.rstrip('.')}); memory is not short: {advice}"
