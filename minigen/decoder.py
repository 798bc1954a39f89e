"""The GPT-style decoder, once, for every family and both backends. Families compose it; nothing here names one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.backends.base import Array, Backend, Tree
from minigen.layers.block import Block
from minigen.layers.norm import Norm
from minigen.layers.param import Param, linear_shapes
from minigen.layers.positions import LearnedPositions
from minigen.layers.step import Step, pick_steps
from minigen.state import KVCache


@dataclass(frozen=True)
class Decoder:
    """What a decoder is made of. `blocks` has one entry a layer; `tied`: the head is the embedding.

    Letters: B batch, T new tokens, C width, V vocabulary.
    """

    vocab_size: int
    width: int
    context: int
    blocks: tuple[Block, ...]
    norm: Norm
    positions: LearnedPositions | None = None
    tied: bool = True

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
        return KVCache.empty(ops, sizes, batch, length, starts)

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
        if step is None:
            step = Step(0, T) if state is None else Step(state.length, T, state.starts)
        if state is not None:
            state.check_room(T)
        x = ops.embedding(ids, params["embedding"]["weight"])
        if self.positions is not None:
            x = self.positions.apply(ops, params["positions"], x, step)
        for i, (block, p) in enumerate(zip(self.blocks, params["blocks"], strict=True)):
            x = block.apply(ops, p, x, step, None if state is None else state.layer(i))
        if state is not None:
            state.length += T
        if at is not None:
            x = pick_steps(ops, x, at)
        x = self.norm.apply(ops, params["norm"], x)
        return ops.linear(x, params["embedding" if self.tied else "head"]["weight"])
