"""Recognizes errors of the frameworks: out of memory, or a device that failed otherwise.

They have few exception classes for this, so the message decides. No framework is imported here.
"""

from __future__ import annotations

import re

from minigen.errors import first_line

# Messages of each device when memory runs out, from the sources of torch 2.13 and MLX 0.32.4.
OUT_OF_MEMORY = {
    "torch, any device": r"out of memory",  # CUDA, HIP, XPU, MPS; "CUDA error: out of memory" too
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
# A device that failed otherwise: nothing that it computes later in this process can be trusted.
BROKEN = re.compile(
    r"CUDA error: |CUDA driver error: |HIP error: |cuDNN error: |CU(BLAS|DNN)_STATUS_|"
    r"\[METAL\] Command buffer execution failed"
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, torch or MLX means that memory ran out.

    The word "memory" is not enough: "illegal memory access" is a fault of a kernel, and "a single
    memory location" one of this program.
    """
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and SHORT.search(str(error)) is not None


def broken_device(error: BaseException) -> str | None:
    """One line about a device that failed while it computed; None for any other error."""
    message = first_line(error)
    if not isinstance(error, RuntimeError) or out_of_memory(error) or not BROKEN.search(message):
        return None
    if "[METAL]" in message:
        advice = "run it again, with a shorter prompt if it fails once more, or with --device cpu"
    else:
        advice = (
            "run it again with MINIGEN_GRAPHS=0; if it still fails, with CUDA_LAUNCH_BLOCKING=1, "
            "which shows the operation, or with --device cpu"
        )
    return f"the GPU failed ({message.rstrip('.')}); memory is not short: {advice}"
