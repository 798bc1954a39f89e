"""Recurrent layers by torch's own kernels, cuDNN's on a GPU: all steps of a layer in one call."""

from __future__ import annotations

from typing import Any

import torch

from minigen.backends.base import Array, Backend, Quantized
from minigen.backends.torch.numbers import full_float32, quiet_copies

KERNELS: dict[str, Any] = {"lstm": torch.lstm, "gru": torch.gru, "rnn": torch.rnn_tanh}
PROMPT = 8  # steps that a GPU makes in one call, at least
NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def run(cell: str, p: Any, x: Array, state: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
    """A layer of "lstm", "gru" or "rnn": x (B, T, I), state (B, H) each -> (B, T, H) and the state after all steps."""
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
    """As `run` for a prompt in float32 on a GPU, whose steps would be thousands of launches; None for anything else.

    In 16 bits one call rounds otherwise than single steps do, and so would go on with another text.
    """
    launches = ops.device.startswith("cuda") and x.shape[1] >= PROMPT
    quantized = any(isinstance(weight, Quantized) for weight in p.values())
    if not launches or quantized or ops.dtype != "float32":
        return None
    with full_float32():
        return run(cell, p, x, state)


def in_one_piece(weights: list[Array]) -> list[Array]:
    """Copies that lie one behind the other in memory of their own, as cuDNN wants them.

    It looks for that at the beginning of the memory that a weight is a view of, which of a model's is elsewhere; it
    would copy them itself at each call, and warn.
    """
    piece = torch.cat([weight.reshape(-1) for weight in weights])
    parts = piece.split([weight.numel() for weight in weights])
    return [part.view(weight.shape) for part, weight in zip(parts, weights, strict=True)]
