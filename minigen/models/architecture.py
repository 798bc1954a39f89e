"""What the rest of minigen asks of a model, whichever it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from minigen.backends.base import Array, Backend, Tree
from minigen.layers.attention import Attention
from minigen.layers.step import Step
from minigen.models.state import Starts, State


class Trainable(Protocol):
    """What training needs: parameters, and logits without a state."""

    def shapes(self) -> Tree:
        """The parameter tree, with a Param at each leaf."""
        ...

    def forward(self, ops: Backend, params: Tree, ids: Array) -> Array:
        """ids (B, T) -> logits (B, T, V)."""
        ...


class Architecture(Protocol):
    """What `generate`, training and benchmarks need of a model: they never ask which one runs."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def context(self) -> int | None:
        """The tokens that a text may have; None: any number."""
        ...

    @property
    def kv_bits(self) -> int | None:
        """The bits of a number in keys and values; None: those of the dtype."""
        ...

    @property
    def reads_at_once(self) -> bool:
        """Whether a pass over several tokens costs less than as many passes."""
        ...

    @property
    def attentions(self) -> tuple[Attention, ...]:
        """That of each layer that has one, for what it costs."""
        ...

    def shapes(self) -> Tree:
        """The parameter tree, with a Param at each leaf."""
        ...

    def new_state(self, ops: Backend, batch: int, length: int, starts: Starts | None = None) -> State:
        """An empty state for `batch` rows with room for `length` tokens; `starts` as in Step."""
        ...

    def forward(
        self,
        ops: Backend,
        params: Tree,
        ids: Array,
        state: Any = None,
        at: Sequence[int] | None = None,
        step: Step | None = None,
    ) -> Array:
        """ids (B, T) -> logits (B, T, V), or (B, len(at), V) after the tokens `at` alone.

        They follow those of the state, or stand alone without one; `step` says otherwise where they do.
        """
        ...

    def record(
        self, ops: Backend, params: Tree, ids: Array, state: Any, at: Sequence[int] | None = None
    ) -> Array | None:
        """The operations of `forward` at whatever position, for `Backend.replay`; None where they depend on it."""
        ...

    def with_kv_bits(self, bits: int | None) -> Architecture:
        """With keys and values of so many bits a number; None: itself. Raises UsageError where that cannot be."""
        ...

    def with_sinks(self, count: int = 4) -> Architecture:
        """For texts without end, by attention sinks. Raises ContextError or UsageError where that cannot be."""
        ...


def kv_name(architecture: Architecture) -> str:
    """ "kv8" or "kv4" for keys and values of so many bits a number, else ""."""
    return f"kv{architecture.kv_bits}" if architecture.kv_bits else ""
