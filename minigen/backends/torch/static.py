"""Torch's operations for a pass that can stand at any position: where it stands is a tensor on the device.

The pass is written at every position at once (`layers.step.AnyStep`), and nothing in it depends on a number of Python's
that changes. So what was done once can be done again as it is: graphs.py has a GPU do so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from minigen.backends.base import Array, Quantized
from minigen.backends.operations import dequantized
from minigen.backends.quantized import Held, arrays_of
from minigen.backends.torch import quantized as torch_quantized
from minigen.backends.torch.backend import TorchBackend


class StaticOps(TorchBackend):
    """Torch's operations for new tokens (B, T) that stand after `length` others, a number () on the device."""

    def __init__(
        self, ops: Any, shape: tuple[int, int], keys: int, starts: npt.NDArray[np.int64] | None
    ) -> None:
        self.device, self.accelerated, self.dtype = ops.device, ops.accelerated, ops.dtype
        self.shape, self.keys = shape, keys
        self.key = torch.arange(keys, device=self.device)
        self.starts = (
            None if starts is None else torch.from_numpy(starts.copy()).to(self.device)[:, None]
        )
        self.constants: list[
            Array
        ] = []  # in the order in which a pass asks for them: no copy from the host later
        self.rows = 2**62  # the fewest that positions are looked up in

    def begin(self, ids: Array, length: Array) -> None:
        """Before each pass."""
        self.ids, self.asked = ids, 0
        self.at = length + torch.arange(
            self.shape[1], device=self.device
        )  # (T,): where in the buffers
        self.positions = (
            self.at[None] if self.starts is None else (self.at - self.starts).clamp(min=0)
        )  # (B or 1, T)
        self.masks: dict[Any, Array] = {}
        self.picked: dict[int, tuple[Array, Array]] = {}

    def constant(self, make: Callable[[], Array]) -> Array:
        if self.asked == len(self.constants):
            self.constants.append(make())
        self.asked += 1
        return self.constants[self.asked - 1]

    def asarray(self, x: npt.ArrayLike) -> Array:
        return self.constant(lambda: super(StaticOps, self).asarray(x))

    def take(self, x: Array, indices: Sequence[int], axis: int) -> Array:
        if list(indices) == list(range(x.shape[axis])):
            return x
        return x.index_select(
            axis, self.constant(lambda: torch.tensor(list(indices), device=x.device))
        )

    def embedding(self, ids: Array, weight: Array | Quantized) -> Array:
        if ids is not self.ids:  # but all positions there are
            ids, table = self.positions, weight.packed if isinstance(weight, Quantized) else weight
            self.rows = min(self.rows, table.shape[0])
        return super().embedding(ids, weight)

    def rotate(self, x: Array, cos: Array, sin: Array) -> Array:
        """`cos` and `sin` (1, 1, positions, half) are tables of all positions."""
        if id(cos) not in self.picked:  # the tables are constants, which stay
            self.rows = min(self.rows, cos.shape[2])
            self.picked[id(cos)] = (
                cos[0, 0][self.positions][:, None],
                sin[0, 0][self.positions][:, None],
            )
        return super().rotate(x, *self.picked[id(cos)])

    def _write_one(self, buffer: Held, new: Held, position: int) -> Held:
        for into, part in zip(arrays_of(buffer), arrays_of(new), strict=True):
            if part.dtype == torch.uint32:  # which torch's operations do not take
                into, part = into.view(torch.int32), part.view(torch.int32)
            into.index_copy_(2, self.at, part.to(into.dtype))
        return buffer

    def attention(
        self, q: Array, k: Held, v: Held, scale: float, mask: Array | str | None
    ) -> Array:
        """`mask` is the number of newest keys that a token sees, itself included, or None for all."""
        k, v = dequantized(self, k), dequantized(self, v)
        B, H, T, D = q.shape
        G = k.shape[1]
        # The heads of a group become its queries, so that no copy of the cache is made for each head.
        q = q.reshape(B, G, H // G * T, D)
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=self.mask(mask, H // G, q.dtype), scale=scale
        ).reshape(B, H, T, D)

    def mask(self, window: Any, copies: int, dtype: torch.dtype) -> Array:
        """What is added to scores (B or 1, 1, copies T, keys), made once a pass: 0, or -inf for what is not seen."""
        if (window, copies) not in self.masks:
            query = self.at[:, None]
            seen = self.key <= query
            if window is not None:
                seen = seen & (self.key > query - window)
            if self.starts is None:
                seen = seen[None]
            else:  # padding sees itself alone, as in Step
                seen = (seen & (self.key >= self.starts[:, None])) | (self.key == query)
            # A width that kernels are made for; what is beyond the keys is cut off again, and costs no copy.
            wide = torch.full(
                (*seen.shape[:2], -(-self.keys // 16) * 16),
                -torch.inf,
                dtype=dtype,
                device=self.device,
            )
            wide[:, :, : self.keys].masked_fill_(seen, 0)
            self.masks[window, copies] = wide.repeat(1, copies, 1)[:, None, :, : self.keys]
        return self.masks[window, copies]

    def quantize(self, weight: Array, bits: int, group: int) -> Quantized:
        """As one part: few tokens are quantized here."""
        lines = weight.reshape(-1, weight.shape[-1])
        packed, scales, biases = torch_quantized.quantize_rows(lines, bits, group)
        outer = weight.shape[:-1]
        codes = packed.reshape(*outer, -1).view(torch.uint32)
        return Quantized(codes, scales.reshape(*outer, -1), biases.reshape(*outer, -1), group, bits)

    def dequantize(self, weight: Quantized) -> Array:
        """All at once: what a cache holds for the keys that are looked at is little."""
        return torch_quantized.unpack(*torch_quantized.arrays_of(weight), weight.group, weight.bits)
