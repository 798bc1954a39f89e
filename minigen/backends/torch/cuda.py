"""What torch is told of a GPU: which one a backend means, and with which kernels attention is computed."""

from __future__ import annotations

import torch

from minigen.backends.base import Array
from minigen.backends.switches import read_switch

CUDNN_VARIABLE = "MINIGEN_CUDNN_ATTENTION"
FLASH_WIDTH = 256  # numbers of a head that flash attention takes


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
    advice = "0 (the default), or to 1 to let torch take cuDNN's attention"
    if read_switch(CUDNN_VARIABLE, ("0", "1"), "0", advice) == "0":
        torch.backends.cuda.enable_cudnn_sdp(False)


def for_fast_attention(
    q: Array, k: Array, v: Array, mask: Array | str | None
) -> tuple[Array, Array]:
    """Keys and values (B, G, S, D) as a fast kernel for q (B, H, T, D) takes them: one for each of its heads, where no
    kernel for grouped heads applies.

    torch has one in flash attention, which takes no mask but the causal one of T = S and 16-bit numbers alone. What is
    left for others is the kernel that writes all scores (B, H, T, S) down; the memory-efficient one, which takes any
    mask, wants as many keys as queries. One query for each head is computed without copies (`TorchBackend.attention`).
    """
    H, T, D = q.shape[1:]
    G, S = k.shape[1:3]
    unmasked = mask is None or (isinstance(mask, str) and T == S)
    flash = unmasked and q.dtype in (torch.bfloat16, torch.float16) and D <= FLASH_WIDTH
    if T == 1 or H == G or flash:
        return k, v
    k, v = (x[:, :, None].expand(-1, -1, H // G, -1, -1).flatten(1, 2) for x in (k, v))
    return k, v
