"""What the rest of minigen asks of any model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from minigen.backends.base import Array, Backend, Tree
from minigen.layers.attention import Attention
from minigen.layers.step import Step
from minigen.models.state import Starts, State


class Trainable(Protocol):
    """What training needs of a model: its parameters, and logits without a state."""

    def shapes(self) -> Tree:
        """The parameter tree, with a `Param` at each leaf."""
        ...

    def forward(self, ops: Backend, params: Tree, ids: Array) -> Array:
        """ids (B, T) -> logits (B, T, V)."""
        ...


class Architecture(Protocol):
    """A language model without its weights: its sizes, parameters, state and computation.

    This is all that generation, training, evaluation and the benchmark know of a model; none of
    them asks which architecture runs. `CausalLM` is the implementation for every family: a family
    builds one from its config.json. A model that does not fit it can implement this protocol
    itself.

    An architecture is immutable and has no arrays. Parameters are passed to `forward`, so one
    architecture serves every backend.
    """

    @property
    def vocab_size(self) -> int:
        """The number V of token ids; every id is below it."""
        ...

    @property
    def context(self) -> int | None:
        """The number of tokens that a text may have; None: any number."""
        ...

    @property
    def kv_bits(self) -> int | None:
        """The bits of each number in keys and values; None: they have the model's dtype."""
        ...

    @property
    def reads_at_once(self) -> bool:
        """Whether one pass over several tokens costs less than a pass for each of them."""
        ...

    @property
    def attentions(self) -> tuple[Attention, ...]:
        """The attention of each layer that has one, to compute costs from."""
        ...

    def shapes(self) -> Tree:
        """The parameter tree: nested dicts and lists with a `Param` at each leaf.

        Checkpoints are checked against it, new models are initialized from it, and `forward`
        receives the same tree with arrays.
        """
        ...

    def new_state(
        self, ops: Backend, batch: int, length: int, starts: Starts | None = None
    ) -> State:
        """Creates an empty state.

        Args:
            ops: The operations of a backend, on whose device the state lives.
            batch: The number of rows.
            length: The number of tokens to make room for; `State.reserve` makes more.
            starts: (batch,), the index of the first real token of each row, where rows are padded
                on the left; None: no row is padded.

        Raises BackendError: the device has too little memory.
        """
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
        """Computes logits.

        Args:
            ops: The operations of a backend.
            params: The parameters: a tree like that of `shapes`, with arrays.
            ids: (B, T), the new tokens.
            state: What was read before. The new tokens follow it, and it is updated. None: there is
                nothing before, and nothing is kept, as in training.
            at: The indices of the new tokens to compute logits for; None: all of them.
            step: Where the new tokens stand and what they see, where that is not one text per row
                that goes on from the state.

        Returns:
            (B, T, V), or (B, len(at), V).

        Raises ContextError: the state has no room for the new tokens.
        """
        ...

    def record(
        self, ops: Backend, params: Tree, ids: Array, state: Any, at: Sequence[int] | None = None
    ) -> Array | None:
        """`forward` with the position as an input, for a backend to record once and replay.

        `Backend.replay` calls it and then updates the state itself. The arguments are those of
        `forward`.

        Returns:
            The logits, or None where the operations depend on the position, so that nothing can be
            recorded.
        """
        ...

    def with_kv_bits(self, bits: int | None) -> Architecture:
        """The same model with keys and values quantized to so many bits; None: unchanged.

        Raises UsageError: the model cannot do that.
        """
        ...

    def with_sinks(self, count: int = 4) -> Architecture:
        """The same model for texts of any length, with `count` attention sinks.

        Raises ContextError: the model's positions have an end.
        Raises UsageError: there cannot be so many sinks.
        """
        ...


def kv_name(architecture: Architecture) -> str:
    """ "kv8" or "kv4" for quantized keys and values, "" for those in the model's dtype."""
    if architecture.kv_bits is None:
        return ""
    return f"kv{architecture.kv_bits}"
