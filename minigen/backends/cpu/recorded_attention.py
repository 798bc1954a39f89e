"""What attention asks of the recorder: rotations, keys and values in the cache, and queries over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.backends.cpu.cache import Cache
from minigen.backends.cpu.instructions import Attend, Instruction, Rotate, Write
from minigen.backends.cpu.recorded import address_of, check
from minigen.backends.quantized import Held

NO_WINDOW = 2**62


class RecordedAttention:
    """Operations of the Recorder, in a file of their own."""

    shape: tuple[int, int]
    rows: int
    tables: list[int]
    instructions: list[Instruction]
    new: Any
    keep: Any
    lines: Any

    def heads(self, x: Any) -> npt.NDArray[Any]:
        """x (B, H, T, D) as (rows, H, D)."""
        _, H, _, D = x.shape
        lines: npt.NDArray[Any] = self.lines(np.transpose(x, (0, 2, 1, 3)), H, D)
        return lines

    def unheads(self, found: Any, like: Any) -> Any:
        """What is stored as (B, T, H, D) as (B, H, T, D)."""
        B, H, T, D = like.shape
        return np.transpose(found.reshape(B, T, H, D), (0, 2, 1, 3))

    def rotate(self, x: Any, cos: Any, sin: Any) -> Any:
        lines, half = self.heads(x), cos.shape[-1]
        _, H, D = lines.shape
        check(cos.shape == sin.shape and cos.shape[:2] == (1, 1) and 2 * half <= D, "a rotation")
        self.tables[1] = min(self.tables[1], cos.shape[2])
        found = self.new(self.rows, H, D)
        rotation = Rotate(
            x=address_of(lines),
            row_stride=lines.strides[0],
            head_stride=lines.strides[1],
            cos=self.keep(cos),
            sin=self.keep(sin),
            out=address_of(found),
            heads=H,
            size=D,
            half=half,
        )
        self.instructions.append(rotation)
        return self.unheads(found, x)

    def write(self, buffers: Sequence[Held], new: Sequence[Any], position: int) -> list[Held]:
        for buffer, x in zip(buffers, new, strict=True):
            check(
                (*x.shape[:2], x.shape[3]) == (*buffer.shape[:2], buffer.shape[3]), "keys or values"
            )
            lines, cache = self.heads(x), Cache.of(buffer)
            write = Write(
                cache=cache.storage,
                x=address_of(lines),
                row_stride=lines.strides[0],
                head_stride=lines.strides[1],
                cache_lane_stride=cache.lane_stride,
                cache_head_stride=cache.head_stride,
                heads=lines.shape[1],
                size=lines.shape[2],
            )
            self.instructions.append(write)
        return list(buffers)

    def attention(self, q: Any, k: Held, v: Held, scale: float, mask: Any) -> Any:
        """`mask` is the number of newest keys that a token sees, itself included, or None for all."""
        lines, keys, values = self.heads(q), Cache.of(k), Cache.of(v)
        _, H, D = lines.shape
        check(keys.is_like(values) and k.shape == v.shape, "keys unlike values")
        check(
            k.shape[0] == self.shape[0] and k.shape[3] == D and H % k.shape[1] == 0,
            "queries unlike keys",
        )
        check(mask is None or isinstance(mask, int), "a mask")
        found = self.new(self.rows, H, D)
        attention = Attend(
            keys=keys.storage,
            values=values.storage,
            q=address_of(lines),
            row_stride=lines.strides[0],
            head_stride=lines.strides[1],
            cache_lane_stride=keys.lane_stride,
            cache_head_stride=keys.head_stride,
            out=address_of(found),
            rows=self.rows,
            heads=H,
            key_heads=k.shape[1],
            size=D,
            window=NO_WINDOW if mask is None else mask,
            scale=scale,
        )
        self.instructions.append(attention)
        return self.unheads(found, q)
