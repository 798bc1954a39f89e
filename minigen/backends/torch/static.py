"""Torch's operations for a pass whose position is a tensor on the device.

The pass is written for every position at once (`layers.step.AnyStep`), and nothing in it depends on
a Python number that changes. So the same operations can be repeated at the next position, as CUDA
graphs do (graphs.py).
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
    """Torch's operations for new tokens (B, T) that follow `length` others, a scalar on the device.

    `shape` is (B, T), `keys` how many keys attention reads, `starts` the first position of each row
    in the buffers, or None if all rows start at 0.
    """

    def __init__(
        self, ops: Any, shape: tuple[int, int], keys: int, starts: npt.NDArray[np.int64] | None
    ) -> None:
        self.device, self.accelerated, self.dtype = ops.device, ops.accelerated, ops.dtype
        self.shape, self.keys = shape, keys
        self.key = torch.arange(keys, device=self.device)
        self.starts: Array | None = None
        if starts is not None:
            self.starts = torch.from_numpy(starts.copy()).to(self.device)[:, None]
        # In the order in which a pass requests them; later passes copy nothing from the host.
        self.constants: list[Array] = []
        self.rows = 2**62  # of the shortest table that positions are looked up in

    def begin(self, ids: Array, length: Array) -> None:
        """Called before each pass, with its tokens (B, T) and the number of tokens before them."""
        self.ids, self.asked = ids, 0
        # (T,): places of the new tokens in the buffers
        self.at = length + torch.arange(self.shape[1], device=self.device)
        # (B or 1, T)
        if self.starts is None:
            self.positions = self.at[None]
        else:
            self.positions = (self.at - self.starts).clamp(min=0)
        self.masks: dict[Any, Array] = {}
        self.picked: dict[int, tuple[Array, Array]] = {}

    def constant(self, make: Callable[[], Array]) -> Array:
        """The next constant of the pass, which `make` creates in the first pass."""
        if self.asked == len(self.constants):
            self.constants.append(make())
        self.asked += 1
        return self.constants[self.asked - 1]

    def asarray(self, x: npt.ArrayLike) -> Array:
        return self.constant(lambda: super(StaticOps, self).asarray(x))

    def take(self, x: Array, indices: Sequence[int], axis: int) -> Array:
        if list(indices) == list(range(x.shape[axis])):
            return x
        chosen = self.constant(lambda: torch.tensor(list(indices), device=x.device))
        return x.index_select(axis, chosen)

    def embedding(self, ids: Array, weight: Array | Quantized) -> Array:
        """As the backend's; for `ids` other than the tokens, which are all positions, those of the
        new tokens."""
        if ids is not self.ids:
            table = weight.packed if isinstance(weight, Quantized) else weight
            self.rows = min(self.rows, table.shape[0])
            ids = self.positions
        return super().embedding(ids, weight)

    def rotate(self, x: Array, cos: Array, sin: Array) -> Array:
        """As the backend's; `cos` and `sin` (1, 1, positions, half) are tables of all positions."""
        if id(cos) not in self.picked:  # the tables are constants, so their ids stay the same
            self.rows = min(self.rows, cos.shape[2])
            own_cos = cos[0, 0][self.positions][:, None]
            own_sin = sin[0, 0][self.positions][:, None]
            self.picked[id(cos)] = own_cos, own_sin
        return super().rotate(x, *self.picked[id(cos)])

    def _write_one(self, buffer: Held, new: Held, position: int) -> Held:
        for target, part in zip(arrays_of(buffer), arrays_of(new), strict=True):
            if part.dtype == torch.uint32:  # torch's operations do not support it
                target, part = target.view(torch.int32), part.view(torch.int32)
            target.index_copy_(2, self.at, part.to(target.dtype))
        return buffer

    def attention(
        self, q: Array, k: Held, v: Held, scale: float, mask: Array | str | None
    ) -> Array:
        """As the backend's, but `mask` is the number of newest keys that a token sees, including
        its own, or None for all."""
        k, v = dequantized(self, k), dequantized(self, v)
        B, H, T, D = q.shape
        G = k.shape[1]
        # The heads of a group become its queries, so that the cache is not copied for each head.
        q = q.reshape(B, G, H // G * T, D)
        added = self.mask(mask, H // G, q.dtype)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=added, scale=scale)
        return y.reshape(B, H, T, D)

    def mask(self, window: Any, copies: int, dtype: torch.dtype) -> Array:
        """What is added to scores: 0, or -inf for keys that a token does not see.

        (B or 1, 1, copies * T, keys). `window` is the number of newest keys that a token sees, or
        None. Made once per pass.
        """
        if (window, copies) not in self.masks:
            query = self.at[:, None]
            seen = self.key <= query
            if window is not None:
                seen = seen & (self.key > query - window)
            if self.starts is None:
                seen = seen[None]
            else:  # padding sees only itself, as in Step
                seen = (seen & (self.key >= self.starts[:, None])) | (self.key == query)
            # Kernels need rows of a multiple of 16; cutting off the rest below costs no copy.
            width = -(-self.keys // 16) * 16
            shape = (*seen.shape[:2], width)
            wide = torch.full(shape, -torch.inf, dtype=dtype, device=self.device)
            wide[:, :, : self.keys].masked_fill_(seen, 0)
            self.masks[window, copies] = wide.repeat(1, copies, 1)[:, None, :, : self.keys]
        return self.masks[window, copies]

    def quantize(self, weight: Array, bits: int, group: int) -> Quantized:
        """As the backend's, in one part: only few tokens are quantized here."""
        lines = weight.reshape(-1, weight.shape[-1])
        packed, scales, biases = torch_quantized.quantize_rows(lines, bits, group)
        outer = weight.shape[:-1]
        codes = packed.reshape(*outer, -1).view(torch.uint32)
        return Quantized(codes, scales.reshape(*outer, -1), biases.reshape(*outer, -1), group, bits)

    def dequantize(self, weight: Quantized) -> Array:
        """As the backend's, in one part: the keys that a pass reads are few."""
        return torch_quantized.unpack(*torch_quantized.arrays_of(weight), weight.group, weight.bits)
