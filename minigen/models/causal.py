"""The causal language model of every family and backend: embedding, a stack of blocks, norm, head.

Families compose it; nothing here names one. GPT and Llama are stacks of attention and feed-forward
blocks, an LSTM is a stack of recurrences, and one stack may mix both kinds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

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
from minigen.models.state import Starts, State


@dataclass(frozen=True)
class CausalLM:
    """A causal language model without its weights. Implements `Architecture`.

    Letters in shapes: B batch, T new tokens, C width, V vocabulary.

    Fields:
        vocab_size: The number V of token ids.
        width: The width C of the embedding.
        context: The number of tokens that a text may have; None: any number.
        blocks: The layers, from the embedding on.
        norm: The norm before the head, or None.
        positions: Learned positions that are added to the embedding, or None.
        tied: Whether the head's weight is the embedding.
        sinks: Attention sinks, which remove the bound of the context; their window is the context
            that the model was trained with.
        kv_bits: The bits of each number in keys and values; None: they have the model's dtype.
        head_bias: Whether the head has a bias.
        out_width: The width of what the last block returns; None: C.
        embedding_dropout: Whether training drops some of the embedding, as decoders do.
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

    # -- variants ----------------------------------------------------------------------------------
    def with_sinks(self, count: int = 4) -> CausalLM:
        """The same model for texts of any length, with attention sinks (Xiao et al. 2023).

        The weights are the same, and up to its context it computes the same function. A model
        without a bound is returned unchanged.

        Raises ContextError: its positions are learned.
        Raises UsageError: `count` sinks leave no room for other tokens.
        """
        window = self.context
        if self.sinks is not None:
            window = self.sinks.window
        if window is None:
            return self
        if self.positions is not None:
            raise ContextError(
                "attention sinks need rotary positions: this model's learned positions end at "
                f"{window}"
            )
        if not 1 <= count < window:
            raise UsageError(
                f"{count} attention sinks do not fit the context of {window}: choose 1 to "
                f"{window - 1}"
            )
        return replace(self, context=None, sinks=Sinks(count, window))

    def with_kv_bits(self, bits: int | None) -> CausalLM:
        """The same model with keys and values of 8 or 4 bits per number, in groups, as in mlx-lm.

        None returns it unchanged.

        Raises UsageError: the number of bits is another one, the model has no keys and
        values, or its heads cannot be divided into groups.
        """
        if bits is None:
            return self
        if not self.timed_slots:
            raise UsageError(
                "a recurrent model has no keys and values: leave kv_bits (--kv-bits) out"
            )
        if bits not in BITS:
            raise UsageError(f"kv_bits is {bits!r}: it must be {' or '.join(map(str, BITS))}")
        for slot in self.timed_slots:
            group_for(slot.shape[-1])
        return replace(self, kv_bits=bits)

    # -- its parts ---------------------------------------------------------------------------------
    def shapes(self) -> Tree:
        """The parameter tree, with a `Param` at each leaf."""
        layers = len(self.blocks)
        out_width = self.out_width or self.width
        shapes: dict[str, Any] = {"embedding": {"weight": Param((self.vocab_size, self.width))}}
        if self.positions is not None:
            shapes["positions"] = self.positions.shapes(self.width)
        shapes["blocks"] = [block.shapes(self.width, layers) for block in self.blocks]
        if self.norm is not None:
            shapes["norm"] = self.norm.shapes(out_width)
        head = linear_shapes(out_width, self.vocab_size, bias=self.head_bias)
        if self.tied:
            del head["weight"]
        if head:
            shapes["head"] = head
        return shapes

    @property
    def slots(self) -> list[Slots]:
        """What each layer remembers."""
        layers: list[Slots] = []
        for block in self.blocks:
            layers.append({name: self.with_bits(slot) for name, slot in block.slots().items()})
        return layers

    def with_bits(self, slot: Slot | LentSlot) -> Slot | LentSlot:
        """A slot as declared; one of keys or values with the model's `kv_bits`."""
        if isinstance(slot, LentSlot) or slot.time is None:
            return slot
        return replace(slot, bits=self.kv_bits)

    def declared_slots(self) -> Iterator[Slot | LentSlot]:
        """The slots of all layers as the blocks declare them."""
        for block in self.blocks:
            yield from block.slots().values()

    @property
    def timed_slots(self) -> list[Slot]:
        """The slots of keys and values in all layers."""
        slots: list[Slot] = []
        for slot in self.declared_slots():
            if isinstance(slot, Slot) and slot.time is not None:
                slots.append(slot)
        return slots

    @cached_property
    def lenders(self) -> frozenset[int]:
        """The layers from which later ones borrow."""
        layers: set[int] = set()
        for slot in self.declared_slots():
            if isinstance(slot, LentSlot):
                layers.add(slot.layer)
        return frozenset(layers)

    @property
    def reads_at_once(self) -> bool:
        """Whether one pass over several tokens costs less than a pass for each of them."""
        return bool(self.timed_slots)

    @property
    def attentions(self) -> tuple[Attention, ...]:
        """The attention of each layer that has one."""
        attentions: list[Attention] = []
        for block in self.blocks:
            attention = getattr(block, "attention", None)
            if isinstance(attention, Attention):
                attentions.append(attention)
        return tuple(attentions)

    # -- what it computes --------------------------------------------------------------------------
    def new_state(
        self, ops: Backend, batch: int, length: int, starts: Starts | None = None
    ) -> State:
        """An empty state, as `Architecture.new_state` describes it."""
        return State.empty(ops, self.slots, batch, length, starts)

    def step_for(self, T: int, state: State | BranchState | None, step: Step | None) -> Step:
        """Where T new tokens stand: `step` if given, else after the tokens of the state.

        Raises ContextError if a given `step` reaches beyond the window of attention sinks.
        """
        length, starts = 0, None
        if state is not None:
            length, starts = state.length, state.starts
        ordinary = step or Step(length, T, starts)
        if self.sinks is None or ordinary.positions.max() < self.sinks.window:
            return ordinary
        if step is not None:
            raise ContextError(
                f"with attention sinks, branches of a text end at {self.sinks.window} tokens"
            )
        assert starts is None, "rows padded on the left cannot pass the window of attention sinks"
        return SinkStep(length, T, self.sinks)

    def record(
        self, ops: Backend, params: Tree, ids: Array, state: State, at: Sequence[int] | None = None
    ) -> Array | None:
        """`forward` with the position as an input, as `Architecture.record` describes it.

        None with sinks and with slots of the newest tokens, as passes then depend on the position.
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
        """ids (B, T) -> logits (B, T, V), or (B, len(at), V) after the tokens `at` these indices.

        `Architecture.forward` describes the arguments.
        """
        T = ids.shape[1]
        step = self.step_for(T, state, step)
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
        """`forward` without counting the tokens of the state."""
        step.lenders = self.lenders
        embedding = params["embedding"]["weight"]
        x = ops.embedding(ids, embedding)
        if self.positions is not None:
            x = self.positions.apply(ops, params["positions"], x, step)
        if self.embedding_dropout:
            x = ops.dropout(x)
        for layer, (block, p) in enumerate(zip(self.blocks, params["blocks"], strict=True)):
            step.layer = layer
            slots = None if state is None else state.layer(layer)
            x = block.apply(ops, p, x, step, slots)
        if state is not None:
            state.commit(ops)
        if at is not None:
            x = select_tokens(ops, x, at)
        if self.norm is not None:
            x = self.norm.apply(ops, params["norm"], x)
        weight = embedding if self.tied else params["head"]["weight"]
        bias = params["head"]["bias"] if self.head_bias else None
        return ops.linear(x, weight, bias)
