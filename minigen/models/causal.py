"""The causal language model, once, for every family and both backends: embedding, a stack of blocks, norm, head.

Families compose it; nothing here names one. GPT and Llama are stacks of attention and feed-forward, an LSTM is a stack
of recurrences, and both kinds of blocks may stand in one stack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from minigen.backends.base import BITS, Array, Backend, Tree
from minigen.backends.quantized import group_for
from minigen.errors import ContextError, UsageError
from minigen.layers.attention import Attention
from minigen.layers.block import Block
from minigen.layers.norm import Norm
from minigen.layers.param import Param, linear_shapes
from minigen.layers.positions import LearnedPositions
from minigen.layers.sinks import Sinks, SinkStep
from minigen.layers.slot import LentSlot, Slot, Slots
from minigen.layers.step import AnyStep, Step, select_tokens
from minigen.models.branching import BranchState
from minigen.models.state import State


@dataclass(frozen=True)
class CausalLM:
    """What a model is made of.

    `width` is that of the embedding, `out_width` that of what the last block gives, where it is another. `tied`: the
    head's weight is the embedding; `head_bias`: the head has a bias, tied or not. `embedding_dropout`: dropout after
    the embedding, as decoders have it; recurrent blocks have their own. `norm` is the last one, None for none.

    `context` is how many tokens a text may have; None: any number. With `sinks` there is no bound, and their window is
    the limit that the model was trained with. `kv_bits` are those of a number in keys and values, None for those of the
    dtype.

    Letters: B batch, T new tokens, C width, V vocabulary.
    """

    vocab_size: int
    width: int
    context: int | None
    blocks: tuple[Block, ...]
    norm: Norm | None
    positions: LearnedPositions | None = None
    tied: bool = True
    sinks: Sinks | None = None
    kv_bits: int | None = None
    head_bias: bool = False
    out_width: int | None = None
    embedding_dropout: bool = True

    # -- variants of it -----------------------------------------------------------------------------------------------
    def with_sinks(self, count: int = 4) -> CausalLM:
        """The same model for texts without end, by attention sinks (Xiao et al. 2023); the weights stay.

        Up to its context it is the same function. A model without a bound is itself. Raises ContextError where
        positions are learned, UsageError for a count that leaves no room for other tokens.
        """
        window = self.sinks.window if self.sinks else self.context
        if window is None:
            return self
        if self.positions is not None:
            raise ContextError(f"attention sinks need rotary positions: this model's learned positions end at {window}")
        if not 1 <= count < window:
            raise UsageError(f"{count} attention sinks do not fit the context of {window}: take 1 to {window - 1}")
        return replace(self, context=None, sinks=Sinks(count, window))

    def with_kv_bits(self, bits: int | None) -> CausalLM:
        """The same model with keys and values of 8 or 4 bits a number, by the head in groups (as mlx-lm's).

        None: itself. Raises UsageError for another number of bits, for a model that keeps no keys and values, and for
        heads of a width that is not for groups.
        """
        if bits is None:
            return self
        if not self.timed_slots:
            raise UsageError("a recurrent model keeps no keys and values: leave kv_bits (--kv-bits) out")
        if bits not in BITS:
            raise UsageError(f"kv_bits is {bits!r}: it must be {' or '.join(map(str, BITS))}")
        for slot in self.timed_slots:
            group_for(slot.shape[-1])
        return replace(self, kv_bits=bits)

    # -- what it is made of -------------------------------------------------------------------------------------------
    def shapes(self) -> Tree:
        """The parameter tree, with a Param at each leaf."""
        layers = len(self.blocks)
        shapes: dict[str, Any] = {"embedding": {"weight": Param((self.vocab_size, self.width))}}
        if self.positions is not None:
            shapes["positions"] = self.positions.shapes(self.width)
        shapes["blocks"] = [block.shapes(self.width, layers) for block in self.blocks]
        if self.norm is not None:
            shapes["norm"] = self.norm.shapes(self.out_width or self.width)
        head = linear_shapes(self.out_width or self.width, self.vocab_size, bias=self.head_bias)
        if self.tied:
            del head["weight"]
        if head:
            shapes["head"] = head
        return shapes

    @property
    def slots(self) -> list[Slots]:
        """What each layer remembers."""
        return [{name: self.with_bits(slot) for name, slot in block.slots().items()} for block in self.blocks]

    def with_bits(self, slot: Slot | LentSlot) -> Slot | LentSlot:
        """A slot of keys or values in as many bits as are asked for."""
        if isinstance(slot, LentSlot) or slot.time is None:
            return slot
        return replace(slot, bits=self.kv_bits)

    @property
    def timed_slots(self) -> list[Slot]:
        """The keys and values of all layers."""
        every = [slot for block in self.blocks for slot in block.slots().values()]
        return [slot for slot in every if isinstance(slot, Slot) and slot.time is not None]

    @property
    def lenders(self) -> frozenset[int]:
        """The layers that later ones look into."""
        every = [slot for block in self.blocks for slot in block.slots().values()]
        return frozenset(slot.layer for slot in every if isinstance(slot, LentSlot))

    @property
    def reads_at_once(self) -> bool:
        """Whether a pass over several tokens costs less than as many passes."""
        return bool(self.timed_slots)

    @property
    def attentions(self) -> tuple[Attention, ...]:
        """That of each layer that has one."""
        parts = [getattr(block, "attention", None) for block in self.blocks]
        return tuple(part for part in parts if isinstance(part, Attention))

    # -- what it computes ---------------------------------------------------------------------------------------------
    def new_state(self, ops: Backend, batch: int, length: int, starts: npt.NDArray[np.int64] | None = None) -> State:
        """An empty state for `batch` rows with room for `length` tokens; `starts` as in Step."""
        return State.empty(ops, self.slots, batch, length, starts)

    def place(self, T: int, state: State | BranchState | None, step: Step | None) -> Step:
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
        self, ops: Backend, params: Tree, ids: Array, state: State, at: Sequence[int] | None = None
    ) -> Array | None:
        """The operations of `forward` at whatever position, for `Backend.replay`, which then says `state.passed`.

        None where what a pass does depends on the position: with sinks, and where only the newest tokens are kept.
        """
        if self.sinks is not None or state.rings:
            return None
        return self.compute(ops, params, ids, state, at, AnyStep(ids.shape[1], state.capacity or 1))

    def forward(
        self,
        ops: Backend,
        params: Tree,
        ids: Array,
        state: State | BranchState | None = None,
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
        logits = self.compute(ops, params, ids, state, at, step)
        if state is not None:
            state.passed(T)
        return logits

    def compute(
        self,
        ops: Backend,
        params: Tree,
        ids: Array,
        state: State | BranchState | None,
        at: Sequence[int] | None,
        step: Step,
    ) -> Array:
        """What `forward` does but for counting the tokens of the state."""
        step.lenders = self.lenders
        embedding = params["embedding"]["weight"]
        x = ops.embedding(ids, embedding)
        if self.positions is not None:
            x = self.positions.apply(ops, params["positions"], x, step)
        if self.embedding_dropout:
            x = ops.dropout(x)
        for layer, (block, p) in enumerate(zip(self.blocks, params["blocks"], strict=True)):
            step.layer = layer
            x = block.apply(ops, p, x, step, None if state is None else state.layer(layer))
        if state is not None:
            state.settle(ops)
        if at is not None:
            x = select_tokens(ops, x, at)
        if self.norm is not None:
            x = self.norm.apply(ops, params["norm"], x)
        weight = embedding if self.tied else params["head"]["weight"]
        return ops.linear(x, weight, params["head"]["bias"] if self.head_bias else None)
