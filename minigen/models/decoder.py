"""The GPT-style decoder, once, for every family and both backends. Families compose it; nothing here names one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.backends.base import BITS, Array, Backend, Tree
from minigen.backends.quantized import group_for
from minigen.errors import ContextError, UsageError
from minigen.layers.block import Block
from minigen.layers.norm import Norm
from minigen.layers.param import Param, linear_shapes
from minigen.layers.positions import LearnedPositions
from minigen.layers.sinks import Sinks, SinkStep
from minigen.layers.step import AnyStep, Step, pick_steps
from minigen.models.state import KVCache


@dataclass(frozen=True)
class Decoder:
    """What a decoder is made of. `blocks` has one entry a layer; `tied`: the head is the embedding.

    `context` is how many tokens a text may have: with `sinks` there is no bound (None), and their window is the limit
    that the model was trained with. `kv_bits` are those of a number in the cache, None for those of the dtype.

    Letters: B batch, T new tokens, C width, V vocabulary.
    """

    vocab_size: int
    width: int
    context: int | None
    blocks: tuple[Block, ...]
    norm: Norm
    positions: LearnedPositions | None = None
    tied: bool = True
    sinks: Sinks | None = None
    kv_bits: int | None = None

    def with_sinks(self, count: int = 4) -> Decoder:
        """The same decoder for texts without end, by attention sinks (Xiao et al. 2023); the weights stay.

        Up to its context it is the same function. Raises ContextError where positions are learned, UsageError for a
        count that leaves no room for other tokens.
        """
        window = self.sinks.window if self.sinks else self.context
        assert window is not None
        if self.positions is not None:
            raise ContextError(f"attention sinks need rotary positions: this model's learned positions end at {window}")
        if not 1 <= count < window:
            raise UsageError(f"{count} attention sinks do not fit the context of {window}: take 1 to {window - 1}")
        return replace(self, context=None, sinks=Sinks(count, window))

    def with_kv_bits(self, bits: int) -> Decoder:
        """The same decoder with a cache of 8 or 4 bits a number, by the head in groups (as mlx-lm's); the weights stay.

        Raises UsageError for another number of bits, and for heads of a width that is not for groups.
        """
        if bits not in BITS:
            raise UsageError(f"kv_bits is {bits!r}: it must be {' or '.join(map(str, BITS))}")
        for block in self.blocks:
            group_for(block.attention.head_dim)
        return replace(self, kv_bits=bits)

    def shapes(self) -> Tree:
        """The parameter tree, with a Param at each leaf."""
        layers = len(self.blocks)
        shapes: dict[str, Any] = {"embedding": {"weight": Param((self.vocab_size, self.width))}}
        if self.positions is not None:
            shapes["positions"] = self.positions.shapes(self.width)
        shapes["blocks"] = [block.shapes(self.width, layers) for block in self.blocks]
        shapes["norm"] = self.norm.shapes(self.width)
        if not self.tied:
            shapes["head"] = linear_shapes(self.width, self.vocab_size, bias=False)
        return shapes

    def new_state(self, ops: Backend, batch: int, length: int, starts: npt.NDArray[np.int64] | None = None) -> KVCache:
        """An empty cache for `batch` rows with room for `length` tokens; `starts` as in Step."""
        sizes = [(block.attention.kv_heads, block.attention.head_dim) for block in self.blocks]
        return KVCache.empty(ops, sizes, batch, length, starts, self.kv_bits)

    def place(self, T: int, state: KVCache | None, step: Step | None) -> Step:
        """The pass of T new tokens: `step`, or after those of the state, with sinks where it goes past their window.

        Raises ContextError for a `step` of another kind that does.
        """
        length, starts = (0, None) if state is None else (state.length, state.starts)
        plain = step or Step(length, T, starts)
        if self.sinks is None or plain.positions.max() < self.sinks.window:
            return plain
        if step is not None:
            raise ContextError(f"with attention sinks, branches of a text end at {self.sinks.window} tokens")
        assert starts is None, "rows padded on the left do not go past the window of attention sinks"
        return SinkStep(length, T, self.sinks)

    def record(
        self, ops: Backend, params: Tree, ids: Array, state: KVCache, at: Sequence[int] | None = None
    ) -> Array | None:
        """`forward` at whatever position, for `Backend.replay`; None with sinks, which change what a pass does."""
        if self.sinks is not None:
            return None
        return self.forward(ops, params, ids, state, at, AnyStep(ids.shape[1], state.capacity))

    def forward(
        self,
        ops: Backend,
        params: Tree,
        ids: Array,
        state: KVCache | None = None,
        at: Sequence[int] | None = None,
        step: Step | None = None,
    ) -> Array:
        """ids (B, T) -> logits (B, T, V), or (B, len(at), V) after the tokens `at` alone.

        With a state, the tokens follow those it holds and are added to it; without, they stand alone. `step` says
        otherwise where they do.
        """
        T = ids.shape[1]
        step = self.place(T, state, step)
        if state is not None:
            state.check_room(T)
        x = ops.embedding(ids, params["embedding"]["weight"])
        if self.positions is not None:
            x = self.positions.apply(ops, params["positions"], x, step)
        x = ops.dropout(x)
        for i, (block, p) in enumerate(zip(self.blocks, params["blocks"], strict=True)):
            x = block.apply(ops, p, x, step, None if state is None else state.layer(i))
        if state is not None:
            state.length += T
        if at is not None:
            x = pick_steps(ops, x, at)
        x = self.norm.apply(ops, params["norm"], x)
        return ops.linear(x, params["embedding" if self.tied else "head"]["weight"])
