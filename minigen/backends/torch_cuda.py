"""What torch is told of a GPU: which one a backend means, and with which kernels attention is computed."""

from __future__ import annotations

import torch


def indexed(device: torch.device) -> torch.device:
    """A GPU with its number. Without one, torch means the current GPU, and safetensors the first."""
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", torch.cuda.current_device())
