"""Settings of torch for a GPU: which one is used, and which kernels compute attention."""

from __future__ import annotations

import torch

from minigen.backends.switches import read_switch

CUDNN_VARIABLE = "MINIGEN_CUDNN_ATTENTION"


def indexed(device: torch.device) -> torch.device:
    """A GPU with its index. Without one, torch means the current GPU and safetensors the first."""
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", torch.cuda.current_device())


def choose_attention() -> None:
    """Turns off cuDNN's attention in this process, unless the environment asks for it.

    torch prefers it on data center GPUs since Hopper. It makes a plan for every new shape, and
    without CUDA graphs each pass has another number of keys. Flash attention makes no plans.

    Raises UsageError if the environment variable is neither 0 nor 1.
    """
    advice = "0 (the default), or to 1 to let torch use cuDNN's attention"
    if read_switch(CUDNN_VARIABLE, ("0", "1"), "0", advice) == "0":
        torch.backends.cuda.enable_cudnn_sdp(False)
