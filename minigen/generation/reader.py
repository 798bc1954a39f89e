"""The first phase of generation: reading. A reader turns prompts and new tokens into logits.

`Runner` is the plain reader of a model. The others hold one and differ in what they do not read
again, or read early:

- `shared_text.BranchReader`: what all prompts begin with is read once, each goes on as a branch;
- `prompt_cache.CachedReader`: the beginning of the prompts was read before and comes from a file;
- `chat/kept.KeptReader`: one text after another on a state that stays;
- `speculation.SpeculativeReader`: guesses are read along with each token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from minigen.backends.base import Array, Backend, Tree
from minigen.models.architecture import Architecture

BLOCK = 512  # tokens of a text read in one forward pass, in a line or packed


class Reader(Protocol):
    """What a run asks for logits. A state belongs to the reader whose `prefill` returned it."""

    @property
    def runner(self) -> Runner:
        """The model that is read with."""
        ...

    @property
    def ahead(self) -> bool:
        """Whether `read` takes ids that only the device knows, before the host has them."""
        ...

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> tuple[Array, Any]:
        """Reads prompts of any lengths.

        Returns the logits (B, 1, V) after each, and a state with room for `capacity` tokens a row.
        """
        ...

    def read(self, ids: Any, state: Any, at: Sequence[int] = (-1,)) -> Array:
        """Appends tokens (B, T), as lists, NumPy's, or on the device, to the state.

        Returns the logits (B, len(at), V) after those that `at` picks, the last if not said.
        """
        ...


@dataclass(frozen=True)
class Runner:
    """A model ready to run: the backend, what the model is made of, and its weights."""

    ops: Backend
    architecture: Architecture
    params: Tree
    ahead: ClassVar[bool] = True

    @property
    def runner(self) -> Runner:
        """Itself: it is the plain Reader."""
        return self

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> tuple[Array, Any]:
        """Reads prompts of any lengths as one batch, padded on the left.

        On a GPU by BLOCK, as one long pass may take more memory, and more time, than the device
        allows. Returns the logits (B, 1, V) after each prompt, and the state, with room for
        `capacity` tokens a row.
        """
        longest = max(map(len, prompts))
        starts = np.array([longest - len(prompt) for prompt in prompts])
        ids = np.zeros((len(prompts), longest), dtype=np.int64)
        for row, prompt in zip(ids, prompts, strict=True):
            row[longest - len(prompt) :] = prompt
        padded = starts if starts.any() else None
        state = self.architecture.new_state(self.ops, len(prompts), max(capacity, longest), padded)
        first = 0
        while self.ops.accelerated and longest - first > BLOCK:
            self.ops.sync(self.read(ids[:, first : first + BLOCK], state))
            self.ops.release()
            first += BLOCK
        return self.read(ids[:, first:], state), state

    def read(self, ids: Any, state: Any, at: Sequence[int] = (-1,)) -> Array:
        """Appends tokens (B, T) to the state, by a recorded pass where the backend has one.

        Returns the logits (B, len(at), V) after those that `at` picks, the last if not said.
        """
        if isinstance(ids, Sequence):
            ids = np.asarray(ids)

        def record(ops: Backend, tokens: Array) -> Array | None:
            return self.architecture.record(ops, self.params, tokens, state, at)

        logits = None
        if not state.must_skip_padding:
            logits = self.ops.replay(ids, state, tuple(at), record)
        if logits is None:
            tokens = self.ops.asarray(ids) if isinstance(ids, np.ndarray) else ids
            logits = self.architecture.forward(self.ops, self.params, tokens, state, at)
        return logits

    def decode(self, ids: Sequence[int] | Array, state: Any) -> Array:
        """Reads one new token (B,) a row: the logits (B, 1, V) after it."""
        return decode(self, ids, state)


def decode(reader: Reader, ids: Sequence[int] | Array, state: Any) -> Array:
    """Reads one new token (B,) a row: the logits (B, 1, V) after it."""
    if isinstance(ids, Sequence):
        ids = np.asarray(ids)
    return reader.read(ids[:, None], state)
