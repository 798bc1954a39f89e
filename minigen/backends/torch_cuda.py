"""What torch is told of a GPU: which one a backend means, and with which kernels attention is computed."""

from __future__ import annotations

import os

import torch

from minigen.errors import UsageError

CUDNN_VARIABLE = "MINIGEN_CUDNN_ATTENTION"


def indexed(device: torch.device) -> torch.device:
    """A GPU with its number. Without one, torch means the current GPU, and safetensors the first."""
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", torch.cuda.current_device())


def choose_attention() -> None:
    """Leaves cuDNN's attention out, unless the environment asks for it. It holds for the whole process.

    On the GPUs of data centers since Hopper torch takes it first. It makes a plan for each shape that it has not seen,
    and the number of keys is another in each pass that is not a graph's. Flash attention makes none.

    Raises UsageError for another value than 0 and 1.
    """
    said = os.environ.get(CUDNN_VARIABLE, "0")
    if said not in ("0", "1"):
        raise UsageError(
            f"{CUDNN_VARIABLE} is {said!r}: set it to 0 (the default), or to 1 to let torch take cuDNN's attention"
        )
    if said == "0":
        torch.backends.cuda.enable_cudnn_sdp(False)
