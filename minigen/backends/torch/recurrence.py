"""Recurrent layers by torch's own kernels, cuDNN's on a GPU: all steps of a layer in one call."""

from __future__ import annotations

from typing import Any

import torch

from minigen.backends.base import Array, Backend, Quantized
from minigen.backends.torch.numbers import full_float32, quiet_copies

KERNELS: dict[str, Any] = {"lstm": torch.lstm, "gru": torch.gru, "rnn": torch.rnn_tanh}
PROMPT = 8  # the fewest steps that a GPU computes in one call
NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def run(cell: str, p: Any, x: Array, state: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
    """A layer of "lstm", "gru" or "rnn" over all steps.

    x (B, T, I), arrays of the state (B, H) each -> (B, T, H) and the state after the last step.
    """
    weights = [p[name] for name in NAMES]
    if x.is_cuda:
        weights = in_one_piece(weights)
    before = [h[None] for h in state]
    hidden: Any = before if len(before) > 1 else before[0]
    with quiet_copies():
        # biases, one layer, no dropout within, training, one direction, batch first
        y, *after = KERNELS[cell](x, hidden, weights, True, 1, 0.0, True, False, True)
    return y, tuple(h[0] for h in after)


def run_prompt(ops: Backend, cell: str, p: Any, x: Array, state: tuple[Array, ...]) -> Any:
    """As `run` for a prompt in float32 on a GPU, where single steps would be thousands of launches.

    Returns None for anything else. In 16 bits one call rounds differently than single steps do, and
    the text would continue differently.
    """
    launches = ops.device.startswith("cuda") and x.shape[1] >= PROMPT
    quantized = any(isinstance(weight, Quantized) for weight in p.values())
    if not launches or quantized or ops.dtype != "float32":
        return None
    with full_float32():
        return run(cell, p, x, state)


def in_one_piece(weights: list[Array]) -> list[Array]:
    """Copies of the weights, one after another in one block of memory, as cuDNN needs them.

    A model's weights may be views into larger arrays. cuDNN would then copy them at each call, with
    a warning.
    """
    piece = torch.cat([weight.reshape(-1) for weight in weights])
    parts = piece.split([weight.numel() for weight in weights])
    return [part.view(weight.shape) for part, weight in zip(parts, weights, strict=True)]
